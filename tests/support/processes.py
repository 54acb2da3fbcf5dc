"""Child processes that never outlive the test run."""

import ctypes
import importlib.util
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
# Variables that decide what the product does: a test starts from none of them, whatever the shell has.
PRODUCT_VARIABLE = re.compile(
    r"DARKROOM_(?!CHROMIUM$)\w+|DATABASE_URL|REDIS_URL|APP_URL|HOST|PORT|DEFAULT_(PROVIDER|MODEL)|"
    r"(AWS|S3|R2|SUPABASE)_\w+|\w*WEBHOOK_SECRET|\w+_API_KEY|\w+_API_URL|\w+_BASE_URL",
)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """The system user a child runs as."""

    uid: int
    gid: int


class StartError(Exception):
    """A child process ended, or never answered, while it was being started; the text is what it printed."""


def package_folder(name: str) -> Path:
    """Where an installed package lies, found without importing it: some warn or lock files at import."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent


def free_port() -> int:
    """
    A TCP port on the loopback address that nobody listens on.

    The kernel hands out such ports at random, so that another process takes it before it is used is most unlikely.
    """
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path,
    identity: Identity | None = None,
    pipes: bool = False,
) -> subprocess.Popen[bytes]:
    """
    Start a child that the kernel ends (SIGQUIT) when the thread that started it ends, even by SIGKILL.

    Call it from the main thread only. What the child prints is appended to `log`; with `pipes` its standard input and
    output are pipes to us instead.
    """
    with log.open("ab") as sink:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else sink,
            stderr=sink,
            env=dict(env),
            cwd=cwd,
            user=None if identity is None else identity.uid,
            group=None if identity is None else identity.gid,
            extra_groups=None if identity is None else [],
            preexec_fn=_end_with_parent(),  # noqa: PLW1509  one prctl call, prepared before the fork
        )


def stop(process: subprocess.Popen[bytes], how: signal.Signals, patience_s: float = 10.0) -> int:
    """Send one signal, wait, kill what is still there; returns the exit code. Twice is once."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    return code


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process ended, giving it up to `seconds`: the pause between two questions to a starting server."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end_with_parent() -> Callable[[], None] | None:
    """For Linux: what the child calls before exec so that it is told to quit when its parent thread ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)

    return arrange
