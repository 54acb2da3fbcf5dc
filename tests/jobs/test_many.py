import asyncio
import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.tables import workflow_nodes
from jobs.errors import BatchRefused, IdempotencyConflict, RunActive, RunFinished, StaleRequest
from jobs.requests import RunRequest, key_in_batch
from jobs.runs import Runs
from jobs.selection import Place, Selection
from jobs.state import Completed, Interrupted, Status
from jobs.tables import generated_images, outgoing_calls, run_events, runs
from providers.base import Cost
from tests.jobs.builders import Hints, event_kinds, node_row, pending, request, rows, running, stored_image

ADA = {"id": "ada"}


@pytest.fixture
def hints() -> Hints:
    return Hints()


@pytest.fixture
def store(engine: AsyncEngine, hints: Hints) -> Runs:
    return Runs(engine, hint=hints)


def batch(count: int = 3, key: str | None = None, **options: Any) -> list[RunRequest]:
    batch_id = options.pop("batch_id", f"batch-{key}")
    return [
        request(
            node_id=f"n{index}",
            key=None if key is None else key_in_batch(key, index),
            batch_id=batch_id,
            node=node_row(f"n{index}"),
            **options,
        )
        for index in range(count)
    ]


async def shown(engine: AsyncEngine) -> dict[str, Any]:
    return {row.id: row.node_data.get("status") for row in await rows(engine, workflow_nodes)}


async def test_a_batch_is_made_as_single_requests_would_be(engine: AsyncEngine, store: Runs, hints: Hints) -> None:
    await pending(store, node_id="n1")
    await store.cancel((await store.current("wf-1"))["n1"].id, {})
    hints.heard.clear()
    made = await store.request_many(batch(requested_by=ADA))
    assert [answer.run.node_id for answer in made] == ["n0", "n1", "n2"]
    assert [answer.run.ordinal for answer in made] == [1, 2, 1]
    for answer in made:
        assert await store.get(answer.run.id) == answer.run
        assert await event_kinds(engine, answer.run.id) == ["requested"]
    assert await shown(engine) == {"n0": "pending", "n1": "pending", "n2": "pending"}
    assert hints.heard == [("wf-1", answer.run.id) for answer in made]


async def test_one_request_that_cannot_be_made_leaves_none(engine: AsyncEngine, store: Runs, hints: Hints) -> None:
    await pending(store, node_id="n1")
    hints.heard.clear()
    with pytest.raises(BatchRefused) as refused:
        await store.request_many(batch())
    assert (refused.value.index, type(refused.value.cause)) == (1, RunActive)
    with pytest.raises(BatchRefused) as stale:
        await store.request_many(batch(after="none"))
    assert (stale.value.index, type(stale.value.cause)) == (0, StaleRequest)
    assert (len(await rows(engine, runs)), hints.heard) == (1, [])


async def test_a_batch_that_fails_in_the_middle_leaves_neither_run_nor_event_nor_hint(
    engine: AsyncEngine, store: Runs, hints: Hints
) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE run_events RENAME TO gone")
    with pytest.raises(sa.exc.DBAPIError):
        await store.request_many(batch(key="k"))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE gone RENAME TO run_events")
    assert (await rows(engine, runs), await rows(engine, run_events), hints.heard) == ([], [], [])
    assert all(answer.created for answer in await store.request_many(batch(key="k")))


async def test_the_same_batch_with_the_same_key_finds_the_same_runs(store: Runs) -> None:
    first = await store.request_many(batch(key="k"))
    for answer in first:
        await store.cancel(answer.run.id, {})
    again = await store.request_many(batch(key="k"))
    assert [answer.run.id for answer in again] == [answer.run.id for answer in first]
    assert not any(answer.created for answer in again)


TURNED = [replace(one, idempotency_key=key_in_batch("k", 2 - number)) for number, one in enumerate(batch(3, "k"))]


@pytest.mark.parametrize(
    "other", [batch(2, "k"), batch(4, "k"), batch(3, "k", prompt="an owl"), TURNED[::-1]], ids=range(4)
)
async def test_the_same_key_with_another_batch_is_refused(
    engine: AsyncEngine, store: Runs, other: list[RunRequest]
) -> None:
    await store.request_many(batch(3, "k"))
    with pytest.raises(BatchRefused) as refused:
        await store.request_many(other)
    assert isinstance(refused.value.cause, IdempotencyConflict)
    assert len(await rows(engine, runs)) == 3


async def test_a_key_of_one_request_is_none_of_a_batch_and_the_other_way_round(store: Runs) -> None:
    await store.request_run(request(key="one"))
    with pytest.raises(BatchRefused, match="another body"):
        await store.request_many(batch(key="one"))
    await store.request_many(batch(key="many"))
    with pytest.raises(IdempotencyConflict):
        await store.request_run(request(node_id="n9", key="many"))


async def test_the_same_batch_many_times_at_once_is_made_once(engine: AsyncEngine, store: Runs) -> None:
    answers = await asyncio.gather(*(store.request_many(batch(20, "k")) for _ in range(5)))
    assert len({tuple(one.run.id for one in answer) for answer in answers}) == 1
    assert len(await rows(engine, runs)) == 20


async def test_many_are_cancelled_as_single_ones_are(engine: AsyncEngine, store: Runs, hints: Hints) -> None:
    url = "https://example.test/hook"
    working = await running(store, node_id="a", webhook_url=url)
    waiting = await pending(store, node_id="b")
    ended = await running(store, node_id="c")
    await store.record(ended.id, 1, Completed((stored_image(ended),), Cost(1, "price")))
    hints.heard.clear()
    changed = await store.cancel_many([working.id, waiting.id, ended.id, "none"], ADA)
    assert {before.id: after.status for before, after in changed} == dict.fromkeys(
        (working.id, waiting.id), Status.CANCELLED
    )
    for before, after in changed:
        assert await store.get(before.id) == after
        assert (await event_kinds(engine, before.id))[-1] == "cancelled"
    assert await shown(engine) == {"a": "cancelled", "b": "cancelled", "c": "completed"}
    assert sorted(hints.heard) == sorted(("wf-1", before.id) for before, _ in changed)
    assert [row.run_id for row in await rows(engine, outgoing_calls)] == [working.id]
    with pytest.raises(RunFinished):
        await store.record(working.id, 1, Interrupted())


async def test_what_somebody_began_meanwhile_is_no_longer_waiting(store: Runs) -> None:
    working, waiting = await running(store, node_id="a"), await pending(store, node_id="b")
    changed = await store.cancel_many([working.id, waiting.id], ADA, waiting=True)
    assert [before.id for before, _ in changed] == [waiting.id]
    assert await store.unfinished_of(Selection(waiting=True), 9) == []
    assert await store.unfinished_of(Selection(), 9) == [working.id]


async def test_cancels_and_completions_at_once_agree_everywhere(engine: AsyncEngine, store: Runs) -> None:
    begun = [await running(store, node_id=f"n{number}") for number in range(24)]

    async def complete(number: int) -> bool:
        run = begun[number]
        try:
            await store.record(run.id, 1, Completed((stored_image(run),), Cost(1, "price")))
        except RunFinished:
            return False
        return True

    chunks = [[run.id for run in begun[at : at + 6]] for at in range(0, 24, 3)]
    cancels = [store.cancel_many(chunk, ADA) for chunk in chunks]
    won = dict(enumerate((await asyncio.gather(*map(complete, range(24)), *cancels))[:24]))
    pictures = {row.run_id for row in await rows(engine, generated_images)}
    seen = await shown(engine)
    for number, run in enumerate(begun):
        status = (await store.get(run.id)).status
        assert status is (Status.COMPLETED if won[number] else Status.CANCELLED)
        assert (run.id in pictures, seen[f"n{number}"]) == (won[number], status.value)


async def test_a_selection_finds_what_it_names_page_by_page(store: Runs) -> None:
    await store.request_many(batch(5, requested_by=ADA, batch_id="b1"))
    await store.request_many(batch(2, requested_by={"id": "bob"}, provider="other", workflow_id="wf-2"))
    found, behind = [], None
    while page := await store.select(Selection(workflow_id="wf-1"), 2, behind):
        found += [run.node_id for run in page]
        behind = Place.from_text(Place.of(page[-1]).to_text())
    assert sorted(found) == [f"n{number}" for number in range(5)]
    for selection, count in (
        (Selection(), 7),
        (Selection(user_id="bob"), 2),
        (Selection(provider="other"), 2),
        (Selection(batch_id="b1"), 5),
        (Selection(workflow_id="wf-1", node_id="n1"), 1),
        (Selection(workflows=frozenset({"wf-2"})), 2),
        (Selection(workflows=frozenset()), 0),
        (Selection(status=Status.FAILED), 0),
    ):
        assert len(await store.select(selection, 50)) == count
        assert await store.count(selection) == count


@pytest.mark.parametrize("text", ["", "x", "e30", "\u00e9", Place(dt.datetime(2026, 1, 1), "r").to_text()])  # noqa: DTZ001
def test_a_place_nobody_made_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="page before"):
        Place.from_text(text)
