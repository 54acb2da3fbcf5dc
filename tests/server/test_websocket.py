"""The contract between rooms and uvicorn's websocket protocol; every test also runs over plain ASGI."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import uvicorn
import websockets
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Map
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode

from crdt import canvas, protocol
from crdt.canvas import CanvasDoc
from crdt.close_codes import Close
from crdt.peer import Peer as RoomPeer
from crdt.protocol import AwarenessUpdate, Durable, PermissionDenied, SyncStep1, SyncUpdate
from crdt.room import Room
from crdt.rooms import Rooms
from server.access import Access
from server.closings import Closings
from server.crowd import Bounds, Crowd
from server.metrics import Metrics
from server.origins import Origins
from server.proxies import Proxies
from server.websocket import RoomProtocol, websocket_endpoint
from tests.crdt.builders import awareness, database, running_rooms

MAX_MESSAGE_BYTES = 1024 * 1024


class Site:
    """A served set of rooms."""

    def __init__(self, port: int, rooms: Rooms, metrics: Metrics, app: Starlette) -> None:
        self.app = app
        self.port = port
        self.rooms = rooms
        self.metrics = metrics

    def number(self, name: str, **labels: str) -> float:
        """A metric as it is now."""
        return self.metrics.registry.get_sample_value(f"darkroom_{name}", labels) or 0.0

    @asynccontextmanager
    async def connect(self, room: str = "r", **options: object) -> AsyncIterator["Peer"]:
        url = f"ws://127.0.0.1:{self.port}/ws/{room}"
        # A client that closes while its queue is full waits for the close frame behind it.
        limits: dict[str, object] = {"max_size": None, "max_queue": None, **options}
        async with websockets.connect(url, **limits) as connection:  # type: ignore[arg-type]
            yield Peer(connection)


class Peer:
    """A pycrdt document behind a real websocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.doc: CanvasDoc = Doc()
        self.states: dict[int, str] = {}

    async def sync(self) -> None:
        """Ask for everything and wait for the answer."""
        await self.connection.send(protocol.step1_message(self.doc.get_state()))
        await self.until(lambda message: isinstance(message, SyncUpdate) and message.step2)

    async def until(self, wanted: Callable[[protocol.Message], bool]) -> None:
        """Take messages until one is wanted."""
        async with asyncio.timeout(10):
            while True:
                frame = await self.connection.recv()
                assert isinstance(frame, bytes)
                (message,) = protocol.parse(frame)
                await self._take(message)
                if wanted(message):
                    return

    async def edit(self, change: Callable[[CanvasDoc], object]) -> None:
        before = self.doc.get_state()
        with self.doc.transaction():
            change(self.doc)
        await self.connection.send(protocol.update_message(self.doc.get_update(before)))

    async def closed(self) -> int | None:
        """Read until the server closes; returns its code."""
        async with asyncio.timeout(10):
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await self.connection.recv()
        return self.connection.close_code

    async def has(self, node_id: str) -> None:
        while node_id not in canvas.node_ids(self.doc):
            await self.until(lambda message: isinstance(message, SyncUpdate))

    async def _take(self, message: protocol.Message) -> None:
        if isinstance(message, SyncUpdate):
            self.doc.apply_update(message.update)
        elif isinstance(message, SyncStep1):
            await self.connection.send(protocol.step2_message(self.doc.get_update(message.state_vector)))
        elif isinstance(message, AwarenessUpdate):
            self.states.update({entry.client_id: entry.state for entry in message.entries})


def put(node_id: str, prompt: str = "") -> Callable[[CanvasDoc], None]:
    def change(doc: CanvasDoc) -> None:
        canvas.nodes_of(doc)[node_id] = Map({"data": Map({"prompt": prompt})})

    return change


@pytest.fixture(params=["native", "asgi"])
async def site(request: pytest.FixtureRequest, sqlite_url: str) -> AsyncIterator[Site]:
    async with database(sqlite_url) as engine, running_rooms(engine) as rooms, serving(request.param, rooms) as site:
        yield site


@asynccontextmanager
async def serving(
    kind: str,
    rooms: Rooms,
    bounds: Bounds | None = None,
    proxies: Proxies | None = None,
    ping_s: float = 20.0,
) -> AsyncIterator[Site]:
    """The rooms behind the websocket door; `kind` is native or asgi."""
    app = Starlette(routes=[WebSocketRoute("/ws/{room}", websocket_endpoint)])
    origins = Origins("http://darkroom.example", [])
    metrics = Metrics()
    app.state.services = SimpleNamespace(
        rooms=rooms,
        origins=origins,
        metrics=metrics,
        proxies=proxies or Proxies(),
        crowd=Crowd(bounds),
        closings=Closings(metrics),
        stopping=asyncio.Event(),
    )
    app.state.access = Access()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(
        app,
        ws=RoomProtocol if kind == "native" else "websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=ping_s,
        ws_ping_timeout=ping_s,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield Site(listener.getsockname()[1], rooms, metrics, app)
    finally:
        server.should_exit = True
        await serving


async def test_two_peers_share_a_document_and_their_presence(site: Site) -> None:
    async with site.connect() as a, site.connect() as b:
        await a.sync()
        await b.sync()
        await a.edit(put("n", "fox"))
        await b.has("n")
        await a.connection.send(awareness(7, 1, '{"user":{"name":"Ada"}}'))
        await b.until(lambda message: isinstance(message, AwarenessUpdate))
        assert b.states == {7: '{"user":{"name":"Ada"}}'}
        assert canvas.read_flow(b.doc) == canvas.read_flow(a.doc)


async def test_a_message_in_fragments_is_one_message(site: Site) -> None:
    async with site.connect() as a, site.connect() as b:
        await a.sync()
        await b.sync()
        with a.doc.transaction():
            put("n", "x" * 100_000)(a.doc)
        whole = protocol.update_message(a.doc.get_update())
        await a.connection.send([whole[:10], whole[10:60_000], whole[60_000:]])
        await b.has("n")


async def test_a_lone_idle_client_gets_its_own_renewal_back(site: Site) -> None:
    """The stock client closes after 45 s without a data message and counts on this echo."""
    async with site.connect() as a:
        await a.sync()
        for clock in (1, 2):
            await a.connection.send(awareness(7, clock, "{}"))
            await a.until(lambda message: isinstance(message, AwarenessUpdate))


async def test_who_asks_is_told_what_is_durable_and_nobody_else(site: Site) -> None:
    async with site.connect("r?ack=1") as asking, site.connect() as stock:
        await stock.sync()
        await asking.sync()
        await asking.edit(put("n"))
        await asking.until(lambda message: message == Durable(2))
        assert not site.rooms.journal.holds("r")
        await stock.connection.send(protocol.update_message(protocol.EMPTY_UPDATE))
        await stock.connection.send(bytes([protocol.QUERY_AWARENESS]))
        heard: set[type] = set()

        def note(message: protocol.Message) -> bool:
            heard.add(type(message))
            return isinstance(message, AwarenessUpdate)

        await stock.until(note)
        assert heard == {SyncUpdate, AwarenessUpdate}


async def test_the_cursor_of_a_killed_socket_vanishes(site: Site) -> None:
    async with site.connect() as a, site.connect() as b:
        await b.sync()
        await a.connection.send(awareness(7, 1, "{}"))
        await b.until(lambda _message: b.states.get(7) == "{}")
        a.connection.transport.abort()
        await b.until(lambda _message: b.states.get(7) == "null")


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"", Close.BAD_MESSAGE.code), ("text", Close.BINARY_ONLY.code), (b"\x00\x02\x05x", Close.BAD_MESSAGE.code)],
)
async def test_a_bad_frame_closes_its_sender_with_a_documented_code(site: Site, frame: bytes | str, code: int) -> None:
    async with site.connect() as bad, site.connect() as good:
        await good.sync()
        await bad.connection.send(frame)
        assert await bad.closed() == code
        assert len((bad.connection.close_reason or "").encode()) <= 123
        await good.edit(put("n"))
        await good.sync()


async def test_a_message_over_the_limit_is_refused_with_1009(site: Site) -> None:
    async with site.connect() as a:
        await a.connection.send(b"\x00\x02" + protocol.var_bytes(b"x" * (MAX_MESSAGE_BYTES + 1)))
        assert await a.closed() == 1009


@pytest.mark.parametrize(
    "room",
    ["a%2Fb", "a/b", "%2F", "..", "..%2F..", "a%2A", "a:b", "a%3Ab", "%00", "a%00", "x" * 129, "x" * 4096, "%C3%BC"],
)
async def test_a_hostile_room_name_is_refused(site: Site, room: str) -> None:
    """A name with a slash matches no route (403 at the upgrade); the others are told why."""
    with contextlib.suppress(websockets.InvalidStatus):
        async with site.connect(room) as a:
            assert await a.closed() == Close.BAD_ROOM.code
    assert site.rooms.all_open() == []


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://evil.example", False),
        ("http://darkroom.example", True),
        (None, True),
        ("null", False),
        ("http://rebound.example", False),
    ],
)
async def test_a_page_of_another_site_may_not_connect(site: Site, origin: str | None, *, allowed: bool) -> None:
    if allowed:
        async with site.connect(origin=origin) as a:
            await a.sync()
    else:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with site.connect(origin=origin):
                pass
        assert refused.value.response.status_code == 403


async def test_several_messages_in_one_frame_are_several_and_an_unknown_one_closes_nothing(site: Site) -> None:
    async with site.connect() as a, site.connect() as b:
        await a.sync()
        await b.sync()
        with a.doc.transaction():
            put("n")(a.doc)
        edit = protocol.update_message(a.doc.get_update())
        await a.connection.send(awareness(7, 1, "{}") + edit + bytes([77, 1, 2, 3]))
        await b.has("n")
        await b.until(lambda _message: 7 in b.states)
        await a.connection.send(bytes([77]))
        await a.sync()


async def test_a_client_that_comes_back_before_its_old_socket_is_gone_keeps_its_cursor(site: Site) -> None:
    async with site.connect() as other:
        await other.sync()
        async with site.connect() as old:
            await old.connection.send(awareness(7, 1, '{"from":"old"}'))
            await other.until(lambda _message: other.states.get(7) == '{"from":"old"}')
            new = await other_side(site)
            await new.connection.send(awareness(7, 2, '{"from":"new"}'))
            await new.until(lambda message: isinstance(message, PermissionDenied))
            old.connection.transport.abort()
        await other.until(lambda _message: other.states.get(7) == '{"from":"new"}')
        await new.connection.send(awareness(7, 9, '{"from":"new","x":1}'))
        await other.until(lambda _message: other.states.get(7) == '{"from":"new","x":1}')
        await new.connection.close()


async def other_side(site: Site) -> Peer:
    """A connection that outlives the block it is made in; the test closes it."""
    return Peer(await websockets.connect(f"ws://127.0.0.1:{site.port}/ws/r", max_size=None))


async def test_a_reader_that_stalls_converges_when_it_reads_again(site: Site) -> None:
    async with site.connect() as writer, site.connect(max_queue=1, close_timeout=0.2) as slow:
        await writer.sync()
        await slow.sync()
        slow.connection.transport.pause_reading()
        for number in range(40):
            await writer.edit(put(f"n{number}", "x" * 300_000))
            await writer.sync()
        slow.connection.transport.resume_reading()
        await slow.has("n39")
        assert canvas.read_flow(slow.doc) == canvas.read_flow(writer.doc)


UPGRADE = (
    b"GET /ws/r HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


class Pipe(asyncio.Transport):
    """Keeps what the server writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.answered = asyncio.Event()
        self.closing = False
        self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        self.answered.set()

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Listening(Room):
    """Keeps the messages it is given."""

    def __init__(self) -> None:
        self.id = "r"
        self.heard: list[bytes] = []

    def hush(self, peer: RoomPeer) -> None: ...

    def receive(self, peer: RoomPeer, frame: bytes) -> None:
        self.heard.append(frame)
        if frame == b"enough":
            peer.socket.close(Close.BAD_MESSAGE.code, "enough")


async def accept(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await receive()


@asynccontextmanager
async def connected(room: Listening, *, max_bytes: int = 1000) -> AsyncIterator[tuple[RoomProtocol, Pipe]]:
    """A protocol after the handshake, lent to the room, without a network."""
    config = uvicorn.Config(
        accept, ws=RoomProtocol, ws_max_size=max_bytes, ws_ping_interval=None, lifespan="off", log_config=None
    )
    config.load()
    native, pipe = RoomProtocol(config, ServerState(), {}), Pipe()
    native.connection_made(pipe)
    native.data_received(UPGRADE)
    (serving,) = native.tasks
    await pipe.answered.wait()
    native.attach(room, RoomPeer(native))
    pipe.written.clear()
    yield native, pipe
    native.connection_lost(None)
    await serving
    if native.close_timer is not None:
        native.close_timer.cancel()


def client_bytes(*frames: Frame) -> bytes:
    return b"".join(frame.serialize(mask=True) for frame in frames)


message_in_parts = st.lists(st.binary(max_size=300), min_size=1, max_size=3).filter(any)
sent_frames = st.lists(
    st.one_of(
        message_in_parts.map(
            lambda parts: [Frame(Opcode.CONT if index else Opcode.BINARY, part) for index, part in enumerate(parts)]
        ),
        st.binary(max_size=20).map(lambda data: [Frame(Opcode.PING, data)]),
    ),
    max_size=6,
)


@given(groups=sent_frames, cuts=st.lists(st.integers(0, 2000), max_size=12))
async def test_messages_are_read_alike_however_the_stream_is_cut(groups: list[list[Frame]], cuts: list[int]) -> None:
    frames = [
        Frame(frame.opcode, frame.data, fin=index == len(group) - 1)
        for group in groups
        for index, frame in enumerate(group)
    ]
    stream = client_bytes(*frames)
    messages = [b"".join(frame.data for frame in group) for group in groups if group[0].opcode is Opcode.BINARY]
    pings = [group[0].data for group in groups if group[0].opcode is Opcode.PING]
    room = Listening()
    async with connected(room) as (native, pipe):
        edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
        for start, end in itertools.pairwise(edges):
            if start < end:
                native.data_received(stream[start:end])
        assert room.heard == messages
        assert bytes(pipe.written) == b"".join(Frame(Opcode.PONG, data).serialize(mask=False) for data in pings)


@pytest.mark.parametrize(
    ("hostile", "code"),
    [
        (Frame(Opcode.BINARY, b"x" * 1001).serialize(mask=True), 1009),
        (Frame(Opcode.BINARY, b"x" * 1001).serialize(mask=True)[:8], 1009),
        (Frame(Opcode.BINARY, b"unmasked").serialize(mask=False), 1002),
        (b"\xc2\x81\0\0\0\0x", 1002),
        (client_bytes(Frame(Opcode.BINARY, b"a", fin=False), Frame(Opcode.BINARY, b"b")), 1002),
        (client_bytes(Frame(Opcode.CONT, b"of nothing")), 1002),
        (b"\x82\xff" + b"\xff" * 8, 1009),
    ],
    ids=["large", "large, its head", "unmasked", "reserved bit", "message in message", "part of nothing", "too long"],
)
async def test_a_hostile_frame_ends_the_connection_and_nothing_behind_it_is_heard(hostile: bytes, code: int) -> None:
    room = Listening()
    async with connected(room) as (native, pipe):
        native.data_received(client_bytes(Frame(Opcode.BINARY, b"good")) + hostile)
        native.data_received(client_bytes(Frame(Opcode.BINARY, b"late")))
        assert room.heard == [b"good"]
        assert pipe.written[0] == 0x88
        assert int.from_bytes(pipe.written[2:4]) == code


async def test_nothing_is_heard_of_a_client_that_was_told_to_go() -> None:
    room = Listening()
    async with connected(room) as (native, _pipe):
        tail = client_bytes(Frame(Opcode.BINARY, b"late"))
        native.data_received(client_bytes(Frame(Opcode.BINARY, b"enough"), Frame(Opcode.BINARY, b"late")) + tail[:1])
        native.data_received(tail[1:])
        assert room.heard == [b"enough"]


async def test_what_came_before_the_room_was_open_is_heard_first() -> None:
    room = Listening()
    async with connected(Listening()) as (native, _pipe):
        native._attached = None
        native.data_received(client_bytes(Frame(Opcode.BINARY, b"first"), Frame(Opcode.BINARY, b"second"))[:-3])
        native.attach(room, RoomPeer(native))
        native.data_received(client_bytes(Frame(Opcode.BINARY, b"second"))[-3:])
        assert room.heard[0] == b"first"
        assert len(room.heard) == 2


async def test_a_connection_that_ended_keeps_no_room() -> None:
    """It lies in reference cycles, and what it refers to would wait for the garbage collector with it."""
    async with connected(Listening()) as (native, _pipe):
        native.connection_lost(None)
        assert not {"_room", "_peer"} & vars(native).keys()
        native.connections.add(native)


async def test_stopping_tells_every_client_to_come_back(site: Site) -> None:
    async with site.connect() as a:
        await a.sync()
        await site.rooms.stop()
        assert await a.closed() == 1012
