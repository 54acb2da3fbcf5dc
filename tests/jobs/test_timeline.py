import datetime as dt
import random

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs import timeline
from jobs.records import RunEvent
from jobs.runs import Runs
from jobs.state import Completed, Stage, StageEntered
from jobs.tables import run_events, runs
from jobs.timeline import MAX_SEEN, CanvasEvent, Cursor, Timeline
from tests.jobs.builders import START, WORKFLOW, Clock, Hints, request, running, stored_image

Place = tuple[str, int]


async def read(reader: Timeline, cursor: Cursor, most: int = 10_000) -> tuple[list[Place], Cursor]:
    """Run and number of the events behind a cursor, and the cursor behind them, as a client would keep it."""
    found: list[Place] = []
    async for event, behind in reader.read(WORKFLOW, cursor):
        cursor = behind
        if event is not None:
            found.append((event.event.run_id, event.event.seq))
        if len(found) >= most:
            break
    return found, reader.parse(str(cursor))


async def recorded(engine: AsyncEngine, run_id: str, seq: int, ts: dt.datetime) -> None:
    """An event as its commit makes it visible, now."""
    async with engine.begin() as connection:
        row = {"run_id": run_id, "seq": seq, "ts": ts, "kind": "stage", "payload": {}}
        await connection.execute(sa.insert(run_events).values(**row))
        await connection.execute(sa.update(runs).where(runs.c.id == run_id).values(updated_at=ts))


async def everything(engine: AsyncEngine) -> list[Place]:
    async with engine.connect() as connection:
        query = sa.select(run_events.c.run_id, run_events.c.seq).order_by(
            *(run_events.c[n] for n in ("ts", "run_id", "seq"))
        )
        return [(row.run_id, row.seq) for row in await connection.execute(query)]


async def test_all_events_of_a_canvas_are_read_once_in_pages_of_any_size(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "PAGE", 3)
    clock = Clock()
    made = Runs(engine, hint=Hints(), clock=clock)
    for number in range(4):
        run = await running(made, node_id=f"n{number}")
        await made.record(run.id, run.attempt, StageEntered(Stage.GENERATING))
        clock.advance(number * 20)
        await made.record(run.id, run.attempt, Completed((stored_image(run),)))
    await made.request_run(request(workflow_id="another canvas"))
    wanted = [place for place in await everything(engine) if place[0] in await mine(engine)]
    reader = Timeline(engine, clock)
    for size in (1, 2, 5, 100):
        found, cursor = list[Place](), Cursor()
        while page := (step := await read(reader, cursor, size))[0]:
            found, cursor = found + page, step[1]
        assert found == wanted


async def mine(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set((await connection.execute(sa.select(runs.c.id).where(runs.c.subject_id == WORKFLOW))).scalars())


async def test_an_event_that_is_committed_late_is_not_missed(engine: AsyncEngine) -> None:
    clock = Clock()
    made = Runs(engine, hint=Hints(), clock=clock)
    slow, quick = [(await running(made, node_id=name)).id for name in ("slow", "quick")]
    reader = Timeline(engine, clock)
    _, cursor = await read(reader, Cursor())
    clock.advance(20)
    await recorded(engine, quick, 3, clock.now)
    found, cursor = await read(reader, cursor)
    assert found == [(quick, 3)]
    # Its time was taken 15 s before, its commit is now.
    await recorded(engine, slow, 3, clock.now - dt.timedelta(seconds=15))
    found, cursor = await read(reader, cursor)
    assert found == [(slow, 3)]
    clock.advance(600)
    assert await read(reader, cursor) == ([], reader.parse(str(Cursor(clock.now - timeline.SETTLE))))


async def test_hinted_runs_are_read_without_a_look_at_the_others(engine: AsyncEngine) -> None:
    made = Runs(engine, hint=Hints())
    one, other = [await running(made, node_id=name) for name in ("one", "other")]
    reader = Timeline(engine)
    _, cursor = await read(reader, Cursor())
    for run in (one, other):
        await made.record(run.id, run.attempt, StageEntered(Stage.GENERATING))
    (found,) = await reader.of_runs(WORKFLOW, [one.id], cursor)
    assert (found.node_id, found.event.seq) == ("one", 3)
    cursor = cursor.past(found.event)
    assert await reader.of_runs(WORKFLOW, [one.id], cursor) == []
    assert (await read(reader, cursor))[0] == [(other.id, 3)]


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1~", "1~a", "1~a.b", "9" * 18, "1~a.1\n", "1" + "~a.1" * (MAX_SEEN + 1)]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no place in these events"):
        Cursor.parse(text, START)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 99), st.integers(0, 1000)), max_size=200))
def test_a_cursor_survives_the_way_through_a_client_and_stays_short(places: list[tuple[int, int, int]]) -> None:
    cursor = Cursor(START)
    for number, seq, after_s in places:
        at = START + dt.timedelta(seconds=after_s)
        cursor = cursor.past(RunEvent(f"{number:032x}"[::-1], seq, at, "stage", {}))
    text = str(cursor)
    assert len(text) < 1_300
    again = Cursor.parse(text, START)
    assert again.at == START
    assert {run: seq for run, (seq, _) in again.seen.items()}.items() <= {
        r: s for r, (s, _) in cursor.seen.items()
    }.items()


@given(st.integers(0, 2**32))
def test_no_event_is_lost_nor_told_twice_however_commits_are_shuffled(seed: int) -> None:
    """A model of a reader that looks after every few commits, each up to 20 s late."""
    draw = random.Random(seed)  # noqa: S311 - the same again for the same seed
    events = []
    for run in range(5):
        at = START
        for seq in range(1, 6):
            at += dt.timedelta(seconds=draw.uniform(0, 40))
            events.append((RunEvent(f"{run}" * 32, seq, at, "stage", {}), at))
    # Of one run an event is committed after the one before it: its row is locked.
    commits: dict[str, dt.datetime] = {}
    dated = []
    for event, at in events:
        commits[event.run_id] = max(commits.get(event.run_id, at), at + dt.timedelta(seconds=draw.uniform(0, 20)))
        dated.append((commits[event.run_id], event))
    told: list[Place] = []
    cursor, now = Cursor(START), START
    while now < START + dt.timedelta(seconds=400):
        now += dt.timedelta(seconds=draw.uniform(0.1, 30))
        visible = sorted(
            (e for at, e in dated if at <= now and e.ts > cursor.at), key=lambda e: (e.ts, e.run_id, e.seq)
        )
        for event in visible:
            cursor = cursor.settled(min(event.ts - timeline._TICK, now - timeline.SETTLE))
            if not cursor.has(event):
                cursor = cursor.past(event)
                told.append((event.run_id, event.seq))
        cursor = Cursor.parse(str(cursor.settled(now - timeline.SETTLE)), now)
    assert sorted(told) == sorted((event.run_id, event.seq) for event, _ in events)


def test_a_canvas_event_names_its_node() -> None:
    event = RunEvent("r", 1, START, "requested", {})
    assert CanvasEvent("n", event).node_id == "n"
