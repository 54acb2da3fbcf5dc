"""
What every test may ask for.

Databases: `postgres_url`, `sqlite_url`, `database_url` (the test runs once on each). Queues: `redis_url`, `docket_url`
(once on each). A Redis to be broken by the test: `own_redis`. The real server as a process: `server`, `start_server`,
`shared_server`. Other people's clients: `node_peer`. Every address is on the loopback interface, every database and
Redis is empty, all is gone afterwards.
"""

import errno
import ipaddress
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.node import NodePeers, install_peer
from tests.support.postgres import PostgresServer, database_name
from tests.support.processes import PRODUCT_VARIABLE, ROOT
from tests.support.redis import RedisServer
from tests.support.server import ServerFactory, ServerProcess

_LONG = frozenset({"story", "browser"})
"""Folders of tests that start servers and wait for them."""

hypothesis.settings.register_profile(
    "default",
    deadline=None,  # The machines share their cores.
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "ci",
    parent=hypothesis.settings.get_profile("default"),
    derandomize=True,
    print_blob=True,
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure() -> None:
    """Start from no product setting of the shell, and stay on this machine."""
    for name in [name for name in os.environ if PRODUCT_VARIABLE.fullmatch(name)]:
        del os.environ[name]
    sys.addaudithook(_refuse_the_outside)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take long, so that no process of the run is left with one when the others are done."""
    items.sort(key=lambda item: not _LONG.intersection(item.path.relative_to(ROOT).parts))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One Postgres per test process, started when the first test asks: making one costs 0.4 s, sharing costs more."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty Postgres database of the test's own, as a SQLAlchemy URL."""
    url = postgres_server.url(postgres_server.create())
    yield url
    postgres_server.drop(database_name(url))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet, as a SQLAlchemy URL."""
    return f"sqlite+aiosqlite:///{tmp_path / 'darkroom.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis per test process: publish and subscribe know no database numbers, so processes cannot share one."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """An empty Redis, shared with no test that runs at the same time."""
    yield redis_server.url
    redis_server.flush()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that only this test uses, for outages: `kill()`, `start()`, `pause()`, `resume()`, `url`."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["memory", "redis"])
def docket_url(request: pytest.FixtureRequest) -> str:
    """An empty job queue of each kind in turn; the memory one is keyed by its URL, so each test has its own."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    url: str = request.getfixturevalue("redis_url")
    return url


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[ServerFactory]:
    """`await start_server(env={...}, data=..., args=[...])` starts the real server; all are stopped afterwards."""
    factory = ServerFactory(tmp_path)
    yield factory
    factory.stop_all()


@pytest.fixture
def server(start_server: ServerFactory) -> ServerProcess:
    """A running server of the test's own, on scratch data, with a demo provider that answers at once."""
    return start_server.now(env={"DARKROOM_DEMO_DELAY_S": "0"})


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A running server that all tests of a module share; each test makes its own workflow."""
    factory = ServerFactory(tmp_path_factory.mktemp("server"))
    yield factory.now(env={"DARKROOM_DEMO_DELAY_S": "0"})
    factory.stop_all()


@pytest.fixture(scope="session")
def node_packages() -> None:
    """What the Node.js peers import, from npm the first time."""
    install_peer()


@pytest.fixture
def node_peer(node_packages: None, tmp_path: Path) -> Iterator[NodePeers]:  # noqa: ARG001  only has to be there
    """`await node_peer(server.ws_url, workflow_id)` starts a stock y-websocket client; all are ended afterwards."""
    peers = NodePeers(tmp_path)
    yield peers
    peers.close_all()


def _refuse_the_outside(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse connections of this process to any address but loopback: a test that needs one is not a test."""
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = str(arguments[1][0]).partition("%")[0]
    try:
        outside = not ipaddress.ip_address(host).is_loopback
    except ValueError:
        outside = host != "localhost"
    if outside:
        raise OSError(errno.ENETUNREACH, "tests talk to loopback addresses only", host)
