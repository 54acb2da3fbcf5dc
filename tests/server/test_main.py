import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from server.__main__ import main
from server.access import Access, Role
from tests.server.tokens import SECRET
from tests.support.processes import LOOPBACK, PRODUCT_VARIABLE, free_port

ROOT = Path(__file__).parents[2]
ADDRESS = re.compile(rb"Darkroom is serving at (http://\S+)\n")


@asynccontextmanager
async def command(*arguments: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m server` as a process, killed at the end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if not PRODUCT_VARIABLE.fullmatch(name)}
    env: Mapping[str, str] = {**inherited, "DARKROOM_DEMO_DELAY_S": "0", **settings}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", *arguments, cwd=ROOT, env=env, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def refusal(*arguments: str, **settings: str) -> str:
    """The one line in which a start is refused."""
    async with asyncio.timeout(30), command(*arguments, **settings) as process:
        out, told = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    lines = [line for line in told.decode().splitlines() if line]
    assert len(lines) == 1, told.decode()
    return lines[0]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """What a command that ends by itself answers: exit code, stdout, stderr. No process: its imports take a second."""

    def run(*arguments: str, **settings: str) -> tuple[int, str, str]:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        out, told = capsys.readouterr()
        return code, out, told

    return run


@pytest.mark.parametrize("role", ["web", "worker"])
async def test_a_role_of_a_fleet_without_its_services_is_refused_in_one_line(tmp_path: Path, role: str) -> None:
    line = await refusal("serve", "--port", "0", "--role", role, DARKROOM_DATA=str(tmp_path))
    assert line == (
        f"darkroom: DARKROOM_ROLE is {role}, which works with other processes: "
        "set REDIS_URL to a redis:// address and DATABASE_URL to a postgresql:// address"
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_serves_and_stops_when_told(tmp_path: Path, how: signal.Signals) -> None:
    async with asyncio.timeout(60), command("serve", "--port", "0", DARKROOM_DATA=str(tmp_path)) as process:
        assert process.stdout is not None
        address = ADDRESS.fullmatch(await process.stdout.readline())
        assert address is not None
        async with httpx2.AsyncClient(base_url=address[1].decode()) as client:
            assert (await client.get("/readyz")).status_code == 200
            workflow = (
                await client.post("/api/workflows", json={"nodes": [{"id": "n", "data": {"prompt": "x"}}]})
            ).json()
            run = (await client.post(f"/api/workflows/{workflow['id']}/nodes/n/runs")).json()
            async with client.stream("GET", f"/api/images/jobs/{run['jobId']}/events") as events:
                assert events.status_code == 200
        async with command("doctor", DARKROOM_DATA=str(tmp_path)) as doctor:
            told, _ = await doctor.communicate()
            assert (doctor.returncode, told.endswith(b"all is well\n")) == (0, True), told.decode()
        process.send_signal(how)
        async with asyncio.timeout(20):
            _, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    assert b"Traceback" not in log, log.decode()
    assert b'"action": "stopped"' in log


async def test_a_stop_does_not_wait_for_jobs_that_take_long_nor_for_their_streams(tmp_path: Path) -> None:
    settings = {"DARKROOM_DATA": str(tmp_path), "DARKROOM_DEMO_DELAY_S": "600"}
    async with asyncio.timeout(60), command("serve", "--port", "0", **settings) as process:
        assert process.stdout is not None
        address = ADDRESS.fullmatch(await process.stdout.readline())
        assert address is not None
        async with httpx2.AsyncClient(base_url=address[1].decode()) as client:
            workflow = (
                await client.post("/api/workflows", json={"nodes": [{"id": "n", "data": {"prompt": "x"}}]})
            ).json()
            run = (await client.post(f"/api/workflows/{workflow['id']}/nodes/n/runs")).json()
            path = f"/api/images/jobs/{run['jobId']}/events"
            async with client.stream("GET", path, headers={"accept": "text/event-stream"}) as events:
                lines = events.aiter_lines()
                assert (await anext(lines)).startswith("retry:")
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(20):
                    assert "completed" not in "".join([line async for line in lines])
                    _, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    assert b"Traceback" not in log, log.decode()


async def test_a_busy_port_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = await refusal("serve", "--port", str(port), DARKROOM_DATA=str(tmp_path / "data"))
    assert line == (
        f"darkroom: PORT: {port} on 127.0.0.1 is in use; "
        f"stop the other program, or choose another port: --port {port + 1}"
    )
    assert not (tmp_path / "data").exists()


async def test_a_data_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    # A file where the folder should be: permissions do not stop every user.
    (tmp_path / "data").write_text("")
    line = await refusal("serve", "--port", "0", DARKROOM_DATA=str(tmp_path / "data"))
    assert line.startswith(f"darkroom: DARKROOM_DATA: cannot write to {tmp_path / 'data'} (")


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A folder that only its owner's superior may write to."""
    tmp_path.chmod(0o500)
    return tmp_path


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop this user")
async def test_a_read_only_data_folder_is_told(read_only: Path) -> None:
    line = await refusal("serve", "--port", "0", DARKROOM_DATA=str(read_only))
    assert "Permission denied" in line


Said = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"DEFAULT_PROVIDER": "openai"}, "DEFAULT_PROVIDER, DEFAULT_MODEL: "),
        ({"DATABASE_URL": f"postgres://u:hunter2@127.0.0.1:{free_port()}/d"}, "DATABASE_URL: cannot use"),
    ],
)
async def test_what_only_a_start_can_tell_is_told_in_one_line(
    tmp_path: Path, settings: dict[str, str], told: str
) -> None:
    line = await refusal("serve", "--port", "0", DARKROOM_DATA=str(tmp_path), **settings)
    assert told in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        (["serve", "--host", "192.0.2.1"], {}, "HOST is 192.0.2.1"),
        (["serve"], {"DARKROOM_SECRET": "hunter2"}, "DARKROOM_SECRET: must be at least 32 bytes long"),
        (["serve"], {"DATABASE_URL": "mysql://hunter2/d"}, "DATABASE_URL: 'mysql' is not supported"),
        (["token"], {}, "DARKROOM_SECRET: set it"),
        (["token"], {"DARKROOM_SECRET": "hunter2"}, "DARKROOM_SECRET: must be at least 32 bytes long"),
        (["token", "--workflows", ","], {"DARKROOM_SECRET": SECRET}, "--workflows: name some"),
        (
            ["token", "--workflows", "a/b"],
            {"DARKROOM_SECRET": SECRET},
            "--workflows: no workflow can have the id 'a/b'",
        ),
    ],
)
def test_wrong_settings_are_told_in_one_line(
    tmp_path: Path, said: Said, arguments: list[str], settings: dict[str, str], told: str
) -> None:
    code, out, line = said(*arguments, DARKROOM_DATA=str(tmp_path), **settings)
    assert (code, out, line.count("\n")) == (2, "", 1)
    assert told in line
    assert "hunter2" not in line


def test_without_a_command_it_says_how_it_is_used(said: Said) -> None:
    code, _, told = said()
    assert code == 2
    assert "usage: darkroom" in told


def test_it_tells_its_version(said: Said) -> None:
    code, out, _ = said("--version")
    assert code == 0
    assert re.fullmatch(r"darkroom \S+\n", out)


def test_it_makes_the_first_token(said: Said) -> None:
    arguments = ("token", "--role", "admin", "--workflows", "w1,w2", "--name", "Ada", "--days", "2")
    code, out, told = said(*arguments, DARKROOM_SECRET=SECRET)
    assert (code, told) == (0, "")
    caller = Access(SECRET).read(out.removesuffix("\n"))
    assert (caller.role, caller.workflows, caller.name) == (Role.ADMIN, frozenset({"w1", "w2"}), "Ada")
    assert 47 * 3600 < (caller.seconds_left() or 0) < 49 * 3600


async def test_with_a_secret_it_listens_beyond_this_machine(tmp_path: Path) -> None:
    settings = {"DARKROOM_DATA": str(tmp_path), "DARKROOM_SECRET": SECRET}
    async with (
        asyncio.timeout(60),
        command("serve", "--host", "0.0.0.0", "--port", "0", **settings) as process,  # noqa: S104
    ):
        assert process.stdout is not None
        address = ADDRESS.fullmatch(await process.stdout.readline())
        assert address is not None
        assert address[1].startswith(b"http://127.0.0.1:")
        async with httpx2.AsyncClient(base_url=address[1].decode()) as client:
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/api/workflows")).status_code == 401
