"""What a websocket may use of the server, over real sockets; every test also runs over plain ASGI."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from sqlalchemy.exc import OperationalError
from websockets.frames import Frame, Opcode

from crdt import canvas, protocol
from crdt.close_codes import Close
from crdt.peer import Peer as RoomPeer
from crdt.protocol import PermissionDenied
from crdt.rooms import RoomLimits
from crdt.rows import Loaded
from crdt.store import SqlStore
from server.access import Access
from server.crowd import Bounds
from server.limits import Allowance, Meter, Rate, Share
from server.proxies import Proxies
from server.websocket import STRANGER_BYTES
from tests.crdt.builders import awareness, database, running_rooms
from tests.server.test_websocket import Listening, Peer, Site, client_bytes, connected, other_side, put, serving
from tests.server.tokens import SECRET, bearer, token

Serve = Callable[..., Awaitable[Site]]


@pytest.fixture(params=["native", "asgi"])
async def serve(request: pytest.FixtureRequest, sqlite_url: str) -> AsyncIterator[Serve]:
    """Serves rooms with the given bounds."""
    async with AsyncExitStack() as stack:

        async def serve(
            bounds: Bounds | None = None,
            limits: RoomLimits | None = None,
            proxies: Proxies | None = None,
            ping_s: float = 20.0,
        ) -> Site:
            engine = await stack.enter_async_context(database(sqlite_url))
            rooms = await stack.enter_async_context(running_rooms(engine, limits=limits))
            return await stack.enter_async_context(serving(request.param, rooms, bounds, proxies, ping_s))

        yield serve


def messages(per_s: float, burst: float) -> Allowance:
    return Allowance(messages=Rate(per_s, burst))


async def flood(peer: Peer, count: int) -> None:
    for number in range(count):
        await peer.edit(put(f"n{number}"))


async def refused(peer: Peer) -> str:
    """The word of the reason for which a peer is closed with 1013."""
    assert await peer.closed() == 1013
    return (peer.connection.close_reason or "").partition(":")[0]


async def test_a_burst_is_held_back_and_nothing_of_it_is_lost(serve: Serve) -> None:
    site = await serve(Bounds(each=messages(per_s=400, burst=50)))
    async with site.connect() as fast, site.connect() as other:
        await fast.sync()
        await other.sync()
        await flood(fast, 200)
        await other.has("n199")
        assert len(canvas.node_ids(other.doc)) == 200
        await fast.sync()
    assert site.number("rate_limited_total") > 0


async def test_who_goes_on_when_held_back_is_told_to_go_and_the_others_stay(serve: Serve) -> None:
    site = await serve(Bounds(each=messages(per_s=100, burst=10), patience_s=0.3))
    async with site.connect() as fast, site.connect() as other:
        await fast.sync()
        await other.sync()
        sending = asyncio.create_task(flood(fast, 5000))
        assert await refused(fast) == "rate-limited"
        sending.cancel()
        await asyncio.wait([sending])
        await other.edit(put("mine"))
        await other.sync()
    labels = {"code": "1013", "reason": "rate-limited"}
    assert site.number("websockets_closed_total", **labels) == 1


@pytest.mark.parametrize(
    ("trusted", "headers", "shared"),
    [
        (["127.0.0.1"], ["203.0.113.5", "203.0.113.5"], True),
        (["127.0.0.1"], ["203.0.113.5", "203.0.113.6"], False),
        (["127.0.0.1"], ["9.9.9.9, 203.0.113.5", "8.8.8.8, 203.0.113.5"], True),
        ([], ["203.0.113.5", "203.0.113.5"], False),
    ],
    ids=["one person behind a proxy", "two persons behind it", "what they forge is not read", "nor without a proxy"],
)
async def test_people_share_what_one_person_may_send(
    serve: Serve, trusted: list[str], headers: list[str], *, shared: bool
) -> None:
    """Each sends three quarters of what one person may."""
    site = await serve(Bounds(person=messages(per_s=20, burst=40)), proxies=Proxies(trusted))
    for header in headers:
        async with site.connect(additional_headers={"X-Forwarded-For": header}) as peer:
            await flood(peer, 29)
            await peer.sync()
    assert (site.number("rate_limited_total") > 0) is shared


async def test_beyond_the_visitors_of_a_canvas_and_of_the_server_it_is_busy(serve: Serve) -> None:
    site = await serve(Bounds(connections=3, room_connections=2))
    async with site.connect("a") as first, site.connect("a") as second:
        await first.sync()
        await second.sync()
        async with site.connect("a") as third:
            assert await refused(third) == "busy"
        async with site.connect("b") as elsewhere, site.connect("c") as fourth:
            await elsewhere.sync()
            assert await refused(fourth) == "busy"
    await gone(site)
    async with site.connect("a") as again:
        await again.sync()


async def gone(site: Site) -> None:
    """Everybody has left."""
    async with asyncio.timeout(10):
        while any(room.peers for room in site.rooms.all_open()):
            async with site.connect("other"):
                pass


async def test_beyond_the_canvases_it_may_open_the_server_is_busy(serve: Serve) -> None:
    site = await serve(limits=RoomLimits(max_open=1))
    async with site.connect("a") as one:
        await one.sync()
        async with site.connect("b") as other, site.connect("a") as same:
            assert await refused(other) == "busy"
            await same.sync()


async def test_a_canvas_that_takes_too_long_to_open_is_to_be_tried_again(serve: Serve) -> None:
    site = await serve(Bounds(join_s=0.0))
    async with site.connect() as peer:
        assert await refused(peer) == "try-again"


class Away(SqlStore):
    """A database that does not answer for a while."""

    away = True

    async def load(self, room: str, after: int = 0) -> Loaded | None:
        if self.away:
            raise OperationalError("load", None, OSError("connection refused"))
        return await super().load(room, after)


async def test_a_database_that_is_away_is_no_reason_to_stay_away(serve: Serve) -> None:
    site = await serve()
    site.rooms._store = store = Away(site.rooms._store._engine, "p1")
    async with site.connect() as peer:
        assert await refused(peer) == "try-again"
    store.away = False
    async with site.connect() as again:
        await again.sync()


async def test_nor_is_it_for_a_viewer_whose_workflow_cannot_be_looked_up(serve: Serve) -> None:
    async def require(_workflow_id: str) -> None:
        raise OperationalError("look up", None, OSError("connection refused"))

    site = await serve()
    site.app.state.access = Access(SECRET)
    site.app.state.services.require = require
    async with site.connect(additional_headers=bearer(token("viewer"))) as viewer:
        assert await refused(viewer) == "try-again"


async def test_who_answers_no_ping_is_gone_and_so_is_their_cursor(serve: Serve) -> None:
    site = await serve(ping_s=0.2)
    async with site.connect() as other:
        deaf = await other_side(site)
        await deaf.connection.send(awareness(7, 1, "{}"))
        await other.until(lambda _message: other.states.get(7) == "{}")
        deaf.connection.transport.pause_reading()
        await other.until(lambda _message: other.states.get(7) == "null")
        deaf.connection.transport.abort()


async def test_a_document_is_as_large_as_it_may_be_and_no_larger(serve: Serve) -> None:
    site = await serve(limits=RoomLimits(max_document_bytes=200_000))
    async with site.connect() as writer, site.connect() as other:
        await writer.sync()
        await other.sync()
        await writer.edit(put("small", "x" * 100_000))
        await other.has("small")
        await writer.edit(put("large", "x" * 150_000))
        assert await writer.closed() == Close.DOCUMENT_FULL.code
        await other.edit(lambda doc: canvas.nodes_of(doc).pop("small"))
        await other.edit(put("fits", "x" * 50_000))
        await other.sync()
        assert canvas.node_ids(site.rooms.all_open()[0].doc) == ["fits"]


@pytest.mark.parametrize(
    "state", ["{no json", "[1]", '{"big":"' + "x" * 1_000_000 + '"}'], ids=["broken", "no object", "large"]
)
async def test_a_presence_that_is_refused_is_told_to_its_sender_alone(serve: Serve, state: str) -> None:
    site = await serve()
    async with site.connect() as sender, site.connect() as other:
        await sender.connection.send(awareness(7, 1, state))
        await sender.until(lambda message: isinstance(message, PermissionDenied))
        await sender.connection.send(awareness(8, 1, "{}"))
        await other.until(lambda _message: 8 in other.states)
        assert other.states == {8: "{}"}
    assert site.number("presence_refused_total") == 1


async def test_a_stranger_cannot_take_a_cursor_and_is_told_once_a_second(serve: Serve) -> None:
    site = await serve()
    async with site.connect() as ada, site.connect() as eve:
        await ada.connection.send(awareness(7, 1, '{"name":"Ada"}'))
        await ada.until(lambda _message: 7 in ada.states)
        for clock in range(2, 52):
            await eve.connection.send(awareness(7, clock, "null"))
        told = 0
        await eve.connection.send(protocol.step1_message(protocol.EMPTY_STATE_VECTOR))
        async with asyncio.timeout(10):
            while True:
                (message,) = protocol.parse(await eve.connection.recv(decode=False))
                told += isinstance(message, PermissionDenied)
                if isinstance(message, protocol.SyncUpdate):
                    break
        assert told == 1
        await ada.connection.send(awareness(7, 2, '{"name":"Ada","x":1}'))
        await ada.until(lambda _message: ada.states[7] == '{"name":"Ada","x":1}')
    assert site.number("presence_refused_total") == 50


async def test_who_repeats_what_others_said_of_themselves_as_stock_clients_do_is_told_nothing_and_keeps_nobody(
    serve: Serve,
) -> None:
    site = await serve()
    async with site.connect() as bob:
        await bob.connection.send(awareness(8, 1, '{"name":"Bob"}'))
        async with site.connect() as ada:
            await ada.connection.send(awareness(7, 1, '{"name":"Ada"}'))
            await bob.until(lambda _message: 7 in bob.states)
            await bob.connection.send(awareness(7, 1, '{"name":"Ada"}'))
            await bob.sync()
        await bob.until(lambda _message: bob.states[7] == "null")
        await bob.connection.send(awareness(7, 2, "null"))
        await bob.sync()
    assert site.number("presence_refused_total") == 0


# The reading side alone, without a network.


async def test_a_client_whose_room_still_opens_is_not_read_beyond_a_small_buffer() -> None:
    room = Listening()
    async with connected(Listening(), max_bytes=10**6) as (native, pipe):
        native._attached = None
        large = client_bytes(Frame(Opcode.BINARY, b"x" * 500_000))
        native.data_received(large[: STRANGER_BYTES - 1000])
        assert [pipe.paused] == [False]
        native.data_received(large[STRANGER_BYTES - 1000 : STRANGER_BYTES + 1000])
        assert [pipe.paused] == [True]
        native.attach(room, RoomPeer(native))
        assert [pipe.paused] == [False]
        native.data_received(large[STRANGER_BYTES + 1000 :])
        assert room.heard == [b"x" * 500_000]


async def test_a_client_that_is_held_back_loses_no_message_and_is_heard_in_order() -> None:
    room = Listening()
    sent = [str(number).encode() for number in range(50)]
    stream = client_bytes(*(Frame(Opcode.BINARY, text) for text in sent))
    async with connected(room) as (native, pipe):
        allowance = messages(per_s=20, burst=1)
        held: list[int] = []
        native.meter(Meter([Share.of(allowance, 0.0)]), lambda: held.append(len(room.heard)))
        native.data_received(stream[:100])
        assert [pipe.paused] == [True]
        assert len(room.heard) < 10
        native.data_received(stream[100:])
        while native._pause is not None:
            native._go_on()
        assert [pipe.paused] == [False]
        assert room.heard == sent
        assert len(held) > 3


async def test_a_client_that_is_closed_while_it_is_held_back_is_heard_no_more() -> None:
    room = Listening()
    async with connected(room) as (native, pipe):
        allowance = messages(per_s=20, burst=1)
        native.meter(Meter([Share.of(allowance, 0.0)]), lambda: None)
        native.data_received(client_bytes(*(Frame(Opcode.BINARY, b"x") for _ in range(50))))
        heard = len(room.heard)
        native.close(*Close.RESTART.because("now"))
        assert [pipe.paused] == [False]
        assert native._pause is None
        native.data_received(client_bytes(Frame(Opcode.BINARY, b"late")))
        assert len(room.heard) == heard < 50


async def test_others_have_their_turn_between_the_messages_of_a_large_paste() -> None:
    room = Listening()
    sent = [b"a" * 20_000, b"b" * 20_000, b"c", b"d"]
    stream = client_bytes(*(Frame(Opcode.BINARY, text) for text in sent[:3]))
    async with connected(room, max_bytes=10**6) as (native, pipe):
        native.data_received(stream)
        assert room.heard == sent[:1]
        native.data_received(client_bytes(Frame(Opcode.BINARY, sent[3])))
        assert [pipe.paused] == [True]
        heard = []
        while native._pause is not None:
            await asyncio.sleep(0)
            heard.append(len(room.heard))
        assert room.heard == sent
        assert [pipe.paused] == [False]
        assert 2 in heard
