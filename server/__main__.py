"""The command line: `darkroom serve`, `darkroom token`, `darkroom doctor`, `darkroom webhook-secret`."""

import argparse
import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from starlette.applications import Starlette

from crdt.rooms import ROOM_ID
from jobs import signing
from server.access import EVERY, MAX_NAME_CHARS, MAX_WORKFLOWS, Access, Grant, Role
from server.app import create_app, version
from server.diagnosis import render
from server.doctor import examine
from server.drain import drain
from server.errors import StartupError
from server.ground import IMAGES_FOLDER, read_webhook_secret
from server.logs import set_up_logging
from server.parts import Parts
from server.reception import Reception
from server.routes.page import find_page
from server.settings import Settings, read_settings
from server.stack import deepen_stack
from server.websocket import RoomProtocol

logger = logging.getLogger("darkroom")

GRACEFUL_S: Final = 3
"""How long answers under way may take once the server is told to stop."""
STOP_LIMIT_S: Final = 20.0
"""So long after all other waits a stop that hangs is cut short: what is committed is safe."""
_BACKLOG: Final = 2048
_NOT_STORED: Final = 1
_BAD_START: Final = 2
_MOST_NAMED: Final = 50
_DAY_S: Final = 24 * 3600
_MOST_DAYS: Final = 366
"""Programs that live longer than people's tokens get theirs from whoever has the secret."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None, parts: Parts | None = None) -> int:
    """Run the command line, with `parts` in place of the usual ones; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "token":
            return _print_token(options)
        if options.command == "doctor":
            return _doctor(options)
        if options.command == "webhook-secret":
            return asyncio.run(_print_webhook_secret(new=options.new))
        settings = read_settings(host=options.host, port=options.port, role=options.role)
        set_up_logging(settings.log_level, settings.log_format)
        deepen_stack()
        listener = bind(settings.host, settings.port)
        with listener:
            settings = settings.model_copy(update={"port": listener.getsockname()[1]})
            return _Process(create_app(settings, parts=parts), settings, listener).run()
    except StartupError as error:
        sys.stderr.write(f"darkroom: {error}\n")
        return _BAD_START


def _print_token(options: argparse.Namespace) -> int:
    """Write a new access token to stdout, alone on its line.

    Raises:
        StartupError: Says what to do about it.

    """
    settings = read_settings()
    if settings.token_secret is None:
        raise StartupError("DARKROOM_SECRET: set it to what the server has; without it no tokens are used")
    workflows = None if options.workflows == EVERY else frozenset(filter(None, options.workflows.split(",")))
    for workflow_id in workflows or ():
        if ROOM_ID.fullmatch(workflow_id) is None:
            raise StartupError(f"--workflows: no workflow can have the id {workflow_id!r}")
    if workflows is not None and not workflows:
        raise StartupError("--workflows: name some, comma separated, or '*' for all")
    if len(workflows or ()) > MAX_WORKFLOWS:
        raise StartupError(f"--workflows: at most {MAX_WORKFLOWS}, or '*' for all")
    grant = Grant(Role(options.role), workflows, options.name[:MAX_NAME_CHARS], options.sub[:MAX_NAME_CHARS])
    issued = Access(settings.token_secret).issue(grant, options.days * _DAY_S)
    sys.stdout.write(f"{issued.token}\n")
    return 0


async def _print_webhook_secret(*, new: bool) -> int:
    """Write what receivers of outgoing calls check signatures with to stdout, alone on its line.

    Raises:
        StartupError: Says what to do about it.

    """
    settings = read_settings()
    secret = signing.make_secret() if new else await read_webhook_secret(settings)
    sys.stdout.write(f"{secret}\n")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    """Write what is wrong to stdout; 1 when something is an error.

    Raises:
        StartupError: Says what to do about it.

    """
    if options.room_dump is not None and options.workflow is None:
        raise StartupError("--room-dump: name the canvas, as in: darkroom doctor WORKFLOW --room-dump FILE")
    settings = read_settings()
    images = settings.data / IMAGES_FOLDER
    deepen_stack()
    report = asyncio.run(examine(settings, images, options.workflow, options.room_dump))
    text = json.dumps(report.to_json(), indent=2) if options.json else render(report)
    sys.stdout.write(f"{text}\n")
    return 0 if report.sound else 1


def bind(host: str, port: int) -> socket.socket:
    """
    Listen at once, before anything slow: a busy port fails now, and early clients wait instead of being refused.

    Raises:
        StartupError: Says what to do about it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise StartupError(f"HOST: {host!r} is no address of this machine ({error.strerror})") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartupError(_why_not(error, host, port)) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn, told to stop by its owner, and saying where it serves once it does."""

    def __init__(self, config: uvicorn.Config, doing: str, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._doing = doing
        self._drain = drain

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the owner: uvicorn would raise them again before the parts behind the app have stopped."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and say so."""
        await super().startup(sockets)
        sys.stdout.write(f"Darkroom is {self._doing}\n")
        sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, tell websockets to come back, then cut whatever is left."""
        for listener in self.servers:
            listener.close()
        for listening in sockets or ():
            listening.close()
        await self._drain()
        await super().shutdown(sockets)


class _Process:
    """One serving process, from start to stop."""

    def __init__(self, app: Starlette, settings: Settings, listener: socket.socket) -> None:
        self._app = app
        self._listener = listener
        self._config = uvicorn.Config(
            app,
            lifespan="off",
            http=Reception,
            ws=RoomProtocol,
            ws_max_size=settings.max_message_bytes,
            ws_ping_interval=20,
            ws_ping_timeout=20,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=GRACEFUL_S,
            log_config=None,
            access_log=False,
            # Forwarded addresses are read by server.proxies, by this server's own setting.
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
        )
        self._settings = settings
        doing = f"serving at {settings.public_url}"
        if settings.role == "worker":
            doing = f"working on runs; how it is: http://{settings.host}:{settings.port}/readyz"
        self._server = _Server(self._config, doing, self._drain)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._code = 0

    def run(self) -> int:
        """Serve until told to stop; the exit code."""
        old = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        try:
            with asyncio.Runner(loop_factory=self._config.get_loop_factory()) as runner:
                runner.run(self._serve())
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        return self._code

    async def _drain(self) -> None:
        await drain(list(self._app.state.running.peers), self._settings.drain_s)

    async def _serve(self) -> None:
        self._task = asyncio.current_task()
        if self._settings.role != "worker" and find_page() is None:
            logger.warning("the page is not built: python3 dev.py run builds it", extra={"action": "no_page"})
        async with self._app.router.lifespan_context(self._app):
            # What was made so far stays for good: the garbage collector need not walk it again and again.
            gc.collect()
            gc.freeze()
            await self._server.serve(sockets=[self._listener])
        unstored = self._app.state.running.unstored
        if unstored:
            self._code = _NOT_STORED
            facts = {"action": "edits_lost", "rooms": list(unstored[:_MOST_NAMED]), "count": len(unstored)}
            logger.error("stopped with edits that are not stored; clients that have them send them again", extra=facts)
        logger.info("stopped", extra={"action": "stopped"})

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping:
            os._exit(1)
        self._stopping = True
        limit_s = STOP_LIMIT_S + self._settings.drain_s + self._settings.stop_s
        limit = threading.Timer(limit_s, os._exit, (_NOT_STORED,))
        limit.daemon = True
        limit.start()
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        logger.info("stopping", extra={"action": "stopping"})
        if self._server.started:
            self._app.state.running.stop()
            self._server.should_exit = True
        elif self._task is not None:
            self._task.cancel()


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"PORT: {port} on {host} is in use; stop the other program, or choose another port: --port {port + 1}"
    if error.errno == errno.EACCES:
        return f"PORT: this user may not listen on port {port}; choose one above 1023: --port 8000"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"HOST: {host} is no address of this machine; use 127.0.0.1"
    return f"HOST, PORT: cannot listen on {host} port {port}: {error.strerror}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="darkroom", description="A realtime collaborative canvas for AI images.")
    parser.add_argument("--version", action="version", version=f"darkroom {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    serve = commands.add_parser("serve", help="start the server", description="Start the server.")
    serve.add_argument("--host", help="address to listen on (HOST, 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on, 0 for a free one (PORT, 8000)")
    does = "what this process does (DARKROOM_ROLE, all): web serves page, API and canvases, worker makes the pictures"
    serve.add_argument("--role", choices=("all", "web", "worker"), help=does)
    _add_token_command(commands)
    _add_doctor_command(commands)
    about = "Write the secret that signs calls to webhookUrl to stdout; receivers check signatures with it."
    secret = commands.add_parser("webhook-secret", help="tell what signs outgoing calls", description=about)
    secret.add_argument("--new", action="store_true", help="make one for DARKROOM_WEBHOOK_SECRET, and store it nowhere")
    return parser


def _add_token_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "Make an access token, signed with DARKROOM_SECRET, and write it to stdout."
    token = commands.add_parser("token", help="make an access token", description=about)
    token.add_argument("--role", choices=[role.value for role in Role], default=Role.EDITOR.value)
    token.add_argument("--workflows", default=EVERY, help="ids, comma separated, or '*' for all (the default)")
    token.add_argument("--name", default="", help="who it is for, as others see it")
    token.add_argument("--sub", default="", help="id of who it is for; made up when left out")
    token.add_argument("--days", type=_days, default=1, help=f"until it ends, 1 to {_MOST_DAYS} (1)")


def _add_doctor_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "Tell what is wrong with settings, database, disk and canvases; changes nothing, also beside a server."
    doctor = commands.add_parser("doctor", help="tell what is wrong", description=about)
    doctor.add_argument("workflow", nargs="?", metavar="WORKFLOW", help="look at this canvas alone, and closer")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.add_argument("--room-dump", type=Path, metavar="FILE", help="write the canvas's document, for support")


def _days(text: str) -> int:
    days = int(text) if text.isdecimal() else 0
    if not 1 <= days <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MOST_DAYS}")
    return days


if __name__ == "__main__":
    sys.exit(main())
