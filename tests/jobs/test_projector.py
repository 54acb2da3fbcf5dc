import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pycrdt import Map
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas
from crdt.bus import MemoryBus
from crdt.json import Json
from crdt.mirroring import SLICE
from crdt.protocol import AwarenessUpdate
from crdt.room import Room
from crdt.rooms import Rooms
from crdt.store import SqlStore
from jobs.errors import IntentRefused
from jobs.images import ImageWorkshop
from jobs.intents import CancelIntent, Intent, RunIntent
from jobs.projector import Projector
from jobs.requests import UNSET
from jobs.run import Run
from jobs.runs import Runs
from jobs.state import Completed, Failed, Stage, StageEntered
from jobs.storage import DiskStore
from providers.errors import InvalidSpec
from tests.crdt.builders import Client
from tests.jobs.builders import (
    NODE,
    WORKFLOW,
    node_row,
    ordering,
    pending,
    png,
    run_error,
    running,
    stored_image,
)

RED_PNG = "data:image/png;base64," + base64.b64encode(png()).decode()


@dataclass
class Theatre:
    """A room that is projected into, and a client in it."""

    rooms: Rooms
    runs: Runs
    projector: Projector
    store: DiskStore
    root: Path
    asked: list[tuple[str, str, Intent]] = field(default_factory=list)
    answer: Callable[[str, str, Intent], Any] | None = None
    deaf: bool = False

    async def ask(self, workflow_id: str, node_id: str, intent: Intent) -> None:
        self.asked.append((workflow_id, node_id, intent))
        if self.answer is not None:
            await self.answer(workflow_id, node_id, intent)

    def hint(self, workflow_id: str, run_id: str) -> None:
        if not self.deaf:
            self.rooms.hint(workflow_id, run_id)

    async def settled(self) -> None:
        """Return once nothing is being looked at."""
        async with asyncio.timeout(10):
            while self.projector._tasks:
                await asyncio.wait(self.projector._tasks)

    async def enter(self) -> Client:
        room = await self.rooms.open(WORKFLOW)
        await self.settled()
        return Client(room)

    async def data(self, client: Client, node_id: str = NODE) -> dict[str, Any]:
        """What the client sees in a node once everything is settled."""
        await self.settled()
        client.sync()
        node = canvas.read_node(client.doc, node_id)
        assert node is not None
        return dict(node.data)

    async def complete(self, run: Run) -> Run:
        begun = await self.runs.begin_attempt(run.id, "w1")
        assert begun is not None
        return await self.runs.record(run.id, begun.attempt, Completed((stored_image(run),)))


class Spy:
    """Sees what the projector writes into the node."""

    def __init__(self, projector: Projector) -> None:
        self.projector = projector
        self.statuses: list[Any] = []
        self.wrote = asyncio.Event()

    async def room_opened(self, room: Room) -> None:
        await self.projector.room_opened(room)

    def room_changed(self, room: Room, nodes: frozenset[str], server: bool) -> None:  # noqa: FBT001
        node = canvas.read_node(room.doc, NODE)
        if server and node is not None:
            self.statuses.append(node.data.get("status"))
            self.wrote.set()
        self.projector.room_changed(room, nodes, server)

    def room_hinted(self, room: Room, run_id: str) -> None:
        self.projector.room_hinted(room, run_id)

    def room_progress(self, room: Room, payload: Mapping[str, Json]) -> None:
        self.projector.room_progress(room, payload)

    def room_truth(self, room: Room, node_id: str) -> Mapping[str, Json] | None:
        return self.projector.room_truth(room, node_id)

    def room_closed(self, room_id: str) -> None:
        self.projector.room_closed(room_id)


@asynccontextmanager
async def stage(engine: AsyncEngine, root: Path, **options: Any) -> AsyncIterator[Theatre]:
    rooms = Rooms(SqlStore(engine, "p1"), MemoryBus(), process_id="p1")
    store = DiskStore(root, "http://test")
    with_hints: list[Theatre] = []

    def hint(workflow_id: str, run_id: str) -> None:
        with_hints[0].hint(workflow_id, run_id)

    runs = Runs(engine, hint=hint)
    async with ImageWorkshop() as workshop:

        async def ask(workflow_id: str, node_id: str, intent: Intent) -> None:
            await with_hints[0].ask(workflow_id, node_id, intent)

        seen = options.pop("runs", runs)
        projector = Projector(rooms, seen, ask, workshop, store, tick_s=0.05, notice_interval_s=0, **options)
        made = Theatre(rooms, runs, projector, store, root)
        with_hints.append(made)
        rooms.listener = projector
        await rooms.start()
        try:
            yield made
        finally:
            await made.settled()
            await rooms.stop()


def write(client: Client, node_id: str = NODE, **data: Any) -> None:
    """Write keys of a node's data as any peer can."""
    with client.doc.transaction():
        shared = canvas.nodes_of(client.doc)[node_id]["data"]
        for key, value in data.items():
            shared[key] = value
    client.push()


def server_state(client: Client) -> dict[str, Any]:
    """What the server tells by awareness."""
    client.room.flush()
    states: dict[str, Any] = {}
    for message in client.pull():
        if isinstance(message, AwarenessUpdate):
            for entry in message.entries:
                state = json.loads(entry.state)
                if state is None or state.get("server"):
                    states = state or {}
    return states


async def test_a_run_is_seen_pending_running_and_completed(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE, prompt="a red fox")
        run = await pending(made.runs)
        assert (await made.data(client))["status"] == "pending"
        begun = await made.runs.begin_attempt(run.id, "w1")
        assert begun is not None
        data = await made.data(client)
        assert (data["status"], data["runSeq"], data["prompt"]) == ("running", 1, "a red fox")
        done = await made.runs.record(run.id, 1, Completed((stored_image(run),)))
        data = await made.data(client)
        assert (data["status"], data["imageUrl"], data["runId"], data["runSeq"]) == (
            "completed",
            done.image_url,
            run.id,
            3,
        )


async def test_a_faked_status_is_put_right_and_the_peers_own_keys_stay(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        run = await made.complete(await pending(made.runs))
        await made.data(client)
        write(client, status="failed", imageUrl="http://evil", label="mine", error={"code": "x"})
        data = await made.data(client)
        assert (data["status"], data["imageUrl"], data["label"], data["error"]) == (
            "completed", (await made.runs.get(run.id)).image_url, "mine", None,
        )  # fmt: skip


async def test_a_deleted_server_key_comes_back(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        await pending(made.runs)
        await made.data(client)
        with client.doc.transaction():
            del canvas.nodes_of(client.doc)[NODE]["data"]["status"]
        client.push()
        assert (await made.data(client))["status"] == "pending"


async def test_a_node_without_a_run_is_reset_but_may_be_idle(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node("copy", status="completed", imageUrl="http://test/x.png", runId="gone", label="a")
        client.add_node("idle", status="idle")
        assert await made.data(client, "copy") == {"label": "a"}
        assert await made.data(client, "idle") == {"status": "idle"}


async def test_a_node_that_was_faked_before_the_room_opened_is_reset_at_open(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with stage(engine, tmp_path) as made:
        listener, made.rooms.listener = made.rooms.listener, None
        client = await made.enter()
        client.add_node("copy", status="completed")
        await made.rooms.flush(WORKFLOW)
        made.rooms.listener = listener
        await made.projector.room_opened(client.room)
        assert await made.data(client, "copy") == {}


async def test_runs_of_a_room_that_nobody_had_open_are_there_when_it_opens(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        await made.rooms.flush(WORKFLOW)
        await made.rooms._evict(WORKFLOW, force=True)
        run = await made.complete(await pending(made.runs))
        again = await made.enter()
        data = await made.data(again)
        assert (data["status"], data["runId"]) == ("completed", run.id)


async def test_a_deleted_and_restored_node_gets_its_run_back(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        run = await pending(made.runs)
        await made.data(client)
        with client.doc.transaction():
            del canvas.nodes_of(client.doc)[NODE]
        client.push()
        done = await made.complete(run)
        await made.settled()
        client.add_node(NODE, prompt="back")
        data = await made.data(client)
        assert (data["status"], data["imageUrl"], data["prompt"]) == ("completed", done.image_url, "back")


async def test_a_lost_hint_is_healed_by_the_slow_tick(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        made.deaf = True
        run = await made.complete(await pending(made.runs))
        assert "status" not in await made.data(client)
        await made.projector.reconcile_open_rooms()
        assert (await made.data(client))["runId"] == run.id


async def test_the_slow_tick_runs_by_itself(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        await made.settled()
        made.deaf = True
        await pending(made.runs)
        made.rooms.listener = spy = Spy(made.projector)
        async with made.projector, asyncio.timeout(5):
            await spy.wrote.wait()
        assert (await made.data(client))["status"] == "pending"


async def test_the_slow_tick_reads_no_runs_when_nothing_happened(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        run = await running(made.runs)
        await made.runs.record(run.id, 1, StageEntered(Stage.UPLOADING))
        await made.settled()
        known = made.projector._canvases[WORKFLOW]
        assert known.tally == (await made.runs.tallies([WORKFLOW]))[WORKFLOW] == 3
        statements: list[str] = []
        sa.event.listen(
            engine.sync_engine, "before_cursor_execute", lambda _c, _cur, sql, *_rest: statements.append(sql)
        )
        await made.projector.reconcile_open_rooms()
        assert len([sql for sql in statements if "FROM runs" in sql]) == 1


async def test_projections_at_once_never_write_an_older_state(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        made.rooms.listener = spy = Spy(made.projector)
        room = client.room
        run = await pending(made.runs)
        works = [made.projector.project(room) for _ in range(5)]
        await asyncio.gather(made.complete(run), *works)
        await asyncio.gather(*(made.projector.project(room) for _ in range(5)))
        await made.settled()
        order = ["pending", "running", "completed"]
        assert spy.statuses == sorted(spy.statuses, key=order.index)
        assert spy.statuses[-1] == "completed"


async def test_nothing_is_written_twice(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        await made.complete(await pending(made.runs))
        await made.settled()
        before = client.room.doc.get_state()
        for _ in range(3):
            await made.projector.project(client.room)
        assert client.room.doc.get_state() == before


async def test_a_process_that_does_not_keep_the_room_writes_nothing(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        await made.settled()
        fence, client.room.fence = client.room.fence, None
        made.deaf = True
        await pending(made.runs)
        await made.projector.project(client.room)
        assert "status" not in await made.data(client)
        client.room.fence = fence


async def test_an_intent_is_asked_once_and_removed(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        made.answer = ordering(made.runs)
        client = await made.enter()
        client.add_node(NODE)
        write(client, request={"after": None, "id": "i1", "by": {"name": "Ann"}})
        data = await made.data(client)
        assert "request" not in data
        assert data["status"] == "pending"
        assert made.asked == [(WORKFLOW, NODE, RunIntent("i1", None, by={"name": "Ann"}))]


async def test_two_peers_asking_after_the_same_run_make_one_run_and_no_refusal(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with stage(engine, tmp_path) as made:
        made.answer = ordering(made.runs)
        client = await made.enter()
        client.add_node(NODE)
        write(client, request={"after": None, "id": "i1"})
        write(client, request={"after": None, "id": "i2"})
        assert "request" not in await made.data(client)
        assert len(await made.runs.history(WORKFLOW, NODE)) == 1
        assert not server_state(client).get("refusals")


@pytest.mark.parametrize(("person", "known"), [({"id": "ada"}, {"id": "ada"}), (None, {})])
async def test_with_tokens_an_intent_is_of_whoever_wrote_it(
    engine: AsyncEngine, tmp_path: Path, person: Mapping[str, str] | None, known: Mapping[str, str]
) -> None:
    async with stage(engine, tmp_path, vouched=True) as made:
        room = (await made.enter()).room
        client = Client(room, person=person)
        client.add_node(NODE, prompt="a fox")
        write(client, request={"after": None, "id": "i1", "by": {"name": "Boss"}})
        assert "request" not in await made.data(client)
        assert [intent.by for _, _, intent in made.asked] == [known]
        assert room.askers == {}


async def test_a_stale_intent_is_removed_and_refused(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        made.answer = ordering(made.runs)
        client = await made.enter()
        client.add_node(NODE)
        await pending(made.runs)
        write(client, request={"after": "long-gone", "id": "i1"})
        await made.settled()
        refusals = server_state(client)["refusals"]
        assert refusals["i1"]["code"] == "stale-request"
        assert refusals["i1"]["nodeId"] == NODE
        assert "request" not in await made.data(client)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (IntentRefused("no-rights", "You may only look."), "no-rights"),
        (InvalidSpec("size", "must be a text"), "invalid-request"),
        (RuntimeError("secret prompt"), "internal"),
    ],
)
async def test_an_order_that_fails_is_refused_with_a_reason_and_tried_no_more(
    sqlite_engine: AsyncEngine, tmp_path: Path, error: Exception, code: str
) -> None:
    async with stage(sqlite_engine, tmp_path) as made:

        async def order(*_: object) -> None:
            raise error

        made.answer = order
        client = await made.enter()
        client.add_node(NODE)
        write(client, request={"id": "i1"})
        await made.settled()
        refusal = server_state(client)["refusals"]["i1"]
        assert refusal["code"] == code
        assert "secret" not in refusal["message"]
        assert "request" not in await made.data(client)
        assert len(made.asked) == 1


async def test_an_order_that_finds_the_database_away_is_tried_again(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(sqlite_engine, tmp_path) as made:

        async def order(*_: object) -> None:
            if len(made.asked) < 3:
                raise ConnectionRefusedError

        made.answer = order
        client = await made.enter()
        client.add_node(NODE)
        write(client, request={"id": "i1"})
        assert "request" not in await made.data(client)
        assert len(made.asked) == 3


@pytest.mark.parametrize("wrong", [5, "x", {}, {"id": 5}, {"id": "i", "cancel": 7}, {"id": "i", "after": 3}, None])
async def test_an_intent_that_is_none_is_removed_without_asking(
    sqlite_engine: AsyncEngine, tmp_path: Path, wrong: Any
) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        write(client, request=wrong)
        assert "request" not in await made.data(client)
        assert made.asked == []


async def test_a_cancel_intent_is_asked(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        write(client, request={"id": "i1", "cancel": "run-7"})
        assert "request" not in await made.data(client)
        assert made.asked == [(WORKFLOW, NODE, CancelIntent("i1", "run-7"))]


async def test_an_intent_without_after_leaves_it_open(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        write(client, request={"id": "i1", "model": "m"})
        await made.settled()
        assert made.asked == [(WORKFLOW, NODE, RunIntent("i1", UNSET, model="m"))]


async def test_an_intent_that_waited_in_the_document_is_done_when_the_room_opens(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        listener, made.rooms.listener = made.rooms.listener, None
        client = await made.enter()
        client.add_node(NODE, request={"id": "i1"})
        made.rooms.listener = listener
        await made.projector.room_opened(client.room)
        assert "request" not in await made.data(client)
        assert len(made.asked) == 1


async def test_a_pasted_picture_moves_to_the_store(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE, reference=RED_PNG, params={"previousImage": RED_PNG, "n": 2})
        data = await made.data(client)
        key = made.store.key_of(data["reference"])
        assert key is not None
        stored = await made.store.get(key)
        assert stored is not None
        assert stored.data == png()
        assert data["params"] == {"previousImage": data["reference"], "n": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        "data:image/png;base64,AAAA",
        "data:image/svg+xml;utf8,<svg/>",
        "data:text/html;base64,PGh0bWw+",
        "data:image/png;base64,%%%",
        "  DATA:image/png;base64,iVBORw0KGgo=",
    ],
)
async def test_a_pasted_thing_that_is_no_picture_is_removed(
    sqlite_engine: AsyncEngine, tmp_path: Path, wrong: str
) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE, reference=wrong, label="a")
        assert await made.data(client) == {"label": "a"}
        assert await asyncio.to_thread(lambda: [*tmp_path.glob("*/*.png")]) == []


async def test_a_prompt_that_begins_like_a_data_url_is_left_alone(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE, prompt="data:image/png;base64,AAAA", label="data: cats, dogs")
        assert (await made.data(client))["label"] == "data: cats, dogs"
        assert (await made.data(client))["prompt"].startswith("data:")


async def test_progress_is_told_by_awareness_and_gone_when_the_run_ends(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        run = await running(made.runs)
        await made.settled()
        line: dict[str, Json] = {
            "runId": run.id,
            "stage": "generating",
            "progress": 0.5,
            "by": "Ann",
        }
        made.rooms.report(WORKFLOW, {"nodeId": NODE, **line})
        assert server_state(client) == {"server": True, "runs": {NODE: line}, "refusals": {}}
        await made.runs.record(run.id, 1, Failed(run_error()))
        await made.settled()
        made.rooms.report(WORKFLOW, {"nodeId": NODE, **line})
        assert server_state(client) == {}


async def test_a_progress_report_of_an_older_run_does_not_hide_the_newer(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        made.rooms.report(WORKFLOW, {"nodeId": NODE, "runId": "new", "stage": "generating"})
        made.rooms.report(WORKFLOW, {"nodeId": NODE, "runId": "old", "ended": True})
        assert server_state(client)["runs"][NODE]["runId"] == "new"
        made.rooms.report(WORKFLOW, {"nodeId": NODE, "runId": "new", "ended": True})
        assert server_state(client) == {}


async def test_a_place_that_was_counted_before_the_run_began_does_not_send_it_back_to_the_queue(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        waits: dict[str, Json] = {"nodeId": NODE, "runId": "run", "stage": "queued", "place": 3}
        made.rooms.report(WORKFLOW, waits)
        made.rooms.report(WORKFLOW, waits | {"place": 2})
        made.projector._canvases[WORKFLOW].notices._tell()
        assert server_state(client)["runs"][NODE]["place"] == 2
        made.rooms.report(WORKFLOW, {"nodeId": NODE, "runId": "run", "stage": "submitting"})
        made.rooms.report(WORKFLOW, waits | {"place": 1})
        made.projector._canvases[WORKFLOW].notices._tell()
        shown = server_state(client)["runs"][NODE]
        assert (shown["stage"], "place" in shown) == ("submitting", False)


async def test_a_room_whose_runs_cannot_be_read_is_not_opened(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(sqlite_engine, tmp_path) as made:
        room: Room = await made.rooms.open(WORKFLOW)
        await sqlite_engine.dispose()
        async with sqlite_engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE runs RENAME TO away"))
        with pytest.raises(sa.exc.OperationalError):
            await made.projector.room_opened(room)
        assert WORKFLOW not in made.projector._canvases
        async with sqlite_engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE away RENAME TO runs"))


async def test_the_mirror_and_the_runs_agree_on_the_node_row(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE, prompt="a")
        run = await pending(made.runs, node=node_row(prompt="a"))
        write(client, prompt="b", status="fake")
        await made.complete(run)
        await made.settled()
        await made.rooms.flush(WORKFLOW)
        async with engine.connect() as connection:
            (row,) = (await connection.execute(sa.text("SELECT node_data FROM workflow_nodes"))).all()
        data = row.node_data if isinstance(row.node_data, dict) else json.loads(row.node_data)
        assert (data["prompt"], data["status"], data["runId"]) == ("b", "completed", run.id)


async def test_a_room_that_heals_is_told_what_a_node_must_show(engine: AsyncEngine, tmp_path: Path) -> None:
    async with stage(engine, tmp_path) as made:
        client = await made.enter()
        client.add_node(NODE)
        run = await made.complete(await pending(made.runs))
        await made.data(client)
        truth = made.projector.room_truth(client.room, NODE)
        assert truth is not None
        assert (truth["status"], truth["runId"], truth["imageUrl"]) == ("completed", run.id, run.image_url)
        assert made.projector.room_truth(client.room, "unknown") is None


async def test_a_large_canvas_is_put_right_in_slices_so_that_others_have_their_turn(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    names = [f"n{number}" for number in range(10 * SLICE)]
    async with stage(sqlite_engine, tmp_path) as theatre:
        client = await theatre.enter()
        with client.doc.transaction():
            for name in names:
                canvas.nodes_of(client.doc)[name] = Map({"type": "image", "data": Map({"imageUrl": "made up"})})
        faked: list[int] = []

        async def others() -> None:
            while True:
                nodes = canvas.nodes_of(client.room.doc)
                faked.append(sum("imageUrl" in nodes[name]["data"] for name in names))
                await asyncio.sleep(0)

        client.push()
        watching = asyncio.create_task(others())
        await theatre.settled()
        watching.cancel()
    seen = sorted({len(names), *faked, 0}, reverse=True)
    assert max(before - after for before, after in pairwise(seen)) <= SLICE
