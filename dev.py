#!/usr/bin/env python3
"""
Sets Darkroom up and runs it: `python3 dev.py run`.

Needs nothing but Python 3.11. Everything is installed into `.venv` beside this file, from the pinned versions in
constraints.txt, the first time and whenever they change.

commands:
  run [...]     set up, build the page and start the server (arguments go to `darkroom serve`)
  test [...]    check, test the page, then run all tests (arguments go to pytest and choose tests)
  coverage      the same, with branch coverage, which takes half as long again
  check         format, lint, types and imports, of the server and of the page
  bench [...]   run the benchmarks (arguments go to `python -m tests.bench`)

Set DARKROOM_SKIP_WEB=1 to leave the page out of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
CONSTRAINTS = ROOT / "constraints.txt"
# What an install depends on; the page has a stamp of its own, kept by hatch_build.py.
INSTALLED_FROM = ("pyproject.toml", "constraints.txt")
# Installed beside the project itself: what each command needs. "dev" holds all that "page" does.
EXTRAS = {"run": "page", "test": "dev", "coverage": "dev", "check": "dev", "bench": "dev"}
# By environment, so that they also reach the pip that pip starts for building.
PIP_SETTINGS = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_RETRIES": "1",
    "DARKROOM_SKIP_WEB": "1",  # The page is built in a step of its own.
}
HEARTBEAT_S = 15.0
NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|Failed to establish a new connection|Network is unreachable|"
    r"Temporary failure in name resolution|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ENETDOWN",
)
IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
CHECKS = {
    "types": ["-m", "mypy"],
    "format": ["-m", "ruff", "format", "--check", "."],
    "lint": ["-m", "ruff", "check", "."],
    "imports": ["-c", IMPORTS],
    "page check": ["hatch_build.py", "npm", "run", "check"],
}
PAGE_TESTS = {"page tests": ["hatch_build.py", "npm", "test"]}
# One process more than the cores of a small machine: much of what tests do is wait. In the order of tests/conftest.py.
PYTEST = ["-m", "pytest", "-n", "3", "--dist", "loadscope", "--no-loadscope-reorder"]
COVERAGE = ["--cov", "--cov-branch", "--cov-report=term:skip-covered"]

Child: TypeAlias = "subprocess.Popen[str] | subprocess.Popen[bytes]"
children: set[Child] = set()


class StepError(Exception):
    """A step failed; the text is all that the reader needs."""


def main(arguments: list[str]) -> int:
    """Run one command; the exit code."""
    signal.signal(signal.SIGTERM, leave)
    command, *rest = arguments or ["--help"]
    if command in {"-h", "--help", "help"}:
        print(__doc__.strip())
        return 0
    if command not in EXTRAS:
        print(f"dev.py: there is no command {command!r}; try: python3 dev.py --help", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    try:
        set_up(EXTRAS[command])
        return {"run": run, "test": test, "coverage": coverage, "check": check, "bench": bench}[command](rest)
    except StepError as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndev.py: stopped", file=sys.stderr)
        return 128 + signal.SIGINT


def set_up(extra: str) -> None:
    """Make the virtual environment and install what is missing; does nothing when nothing changed."""
    python = venv_version()
    if not python:
        make_venv()
        python = venv_version()
    wanted = {name: install_key(name, python) for name in EXTRAS.values()}
    satisfying = {wanted[extra], wanted["dev"]}
    stamp = VENV / "installed.sha256"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") in satisfying:
        return
    stamp.unlink(missing_ok=True)
    # Without compiling everything at once; Python compiles what is imported, when it is.
    step = ["-m", "pip", "install", "--no-compile", "-c", str(CONSTRAINTS), "-e", f"{ROOT}[{extra}]"]
    quietly("install packages", step, PIP_SETTINGS)
    partial = stamp.with_suffix(".partial")
    partial.write_text(wanted[extra], encoding="utf-8")
    partial.replace(stamp)


def venv_version() -> str:
    """The Python version of the virtual environment; empty when there is none that works."""
    if not PYTHON.exists():
        return ""
    question = [str(PYTHON), "-c", "import sys, pip; print(sys.version, sys.prefix)"]
    done = subprocess.run(question, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def make_venv() -> None:
    """Create `.venv` anew; one half made, or left by a Python that is gone, is replaced."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise StepError("this Python cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv")
    quietly("make .venv", ["-m", "venv", "--clear", str(VENV)], python=sys.executable)


def install_key(extra: str, python: str) -> str:
    """A hash of all that decides what an install puts where."""
    parts = [(ROOT / name).read_bytes() for name in INSTALLED_FROM]
    return hashlib.sha256(b"\0".join([*parts, extra.encode(), python.encode(), str(ROOT).encode()])).hexdigest()


def build_page() -> None:
    """Bring the page up to date, unless it is to be left out."""
    if not page_skipped():
        quietly("build page", ["hatch_build.py"])


def page_skipped() -> bool:
    """Whether the page is to be left out."""
    return os.environ.get("DARKROOM_SKIP_WEB", "") not in {"", "0"}


def run(arguments: list[str]) -> int:
    """Become the server, so that signals reach it and nothing is left behind."""
    build_page()
    say("start the server; Ctrl-C stops it")
    os.execve(str(PYTHON), [str(PYTHON), "-m", "server", "serve", *arguments], environment())  # noqa: S606


def check(arguments: list[str]) -> int:
    """Run every static check and show what failed."""
    if arguments:
        raise StepError("check takes no arguments")
    return summary(run_steps(CHECKS))


def test(arguments: list[str]) -> int:
    """Check, test the page, then run pytest: all of it, or what the arguments choose."""
    build_page()
    failed = run_steps({**CHECKS, **PAGE_TESTS})
    say("run the tests")
    code = attended([str(PYTHON), *PYTEST, *arguments])
    if code:
        failed.append("tests")
    return summary(failed) or code


def coverage(arguments: list[str]) -> int:
    """As `test`, and show what the tests never reach."""
    return test([*COVERAGE, *arguments])


def bench(arguments: list[str]) -> int:
    """Run the benchmarks."""
    if not (ROOT / "tests" / "bench").is_dir():
        raise StepError("this checkout has no benchmarks (tests/bench)")
    return attended([str(PYTHON), "-m", "tests.bench", *arguments])


def run_steps(steps: dict[str, list[str]]) -> list[str]:
    """Run steps two at a time, each reported when it ends; returns the names of those that failed."""
    wanted = {name: step for name, step in steps.items() if not (page_skipped() and name.startswith("page"))}
    failed = []
    with ThreadPoolExecutor(2) as pool:
        for name, error in zip(wanted, pool.map(lambda name: attempt(name, wanted[name]), wanted), strict=True):
            if error:
                failed.append(name)
                print(f"dev.py: {error}", file=sys.stderr)
    return failed


def attempt(name: str, step: list[str]) -> str:
    """Run one step; returns what went wrong, or nothing."""
    try:
        quietly(name, step)
    except StepError as error:
        return str(error)
    return ""


def summary(failed: list[str]) -> int:
    """Say how it went in one line; the exit code."""
    say(f"FAILED: {', '.join(failed)}" if failed else "all is well")
    return 1 if failed else 0


def quietly(name: str, step: list[str], extra_env: dict[str, str] | None = None, python: str = str(PYTHON)) -> None:
    """
    Run a step of ours, one line when it is done and a sign of life while it takes long.

    Raises:
        StepError: It failed, with what it printed, or one line when there is no network.
    """
    began = time.monotonic()
    child = subprocess.Popen(
        [python, *step],
        env=environment(extra_env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    children.add(child)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(child.stdout or ()), daemon=True)
    reader.start()
    try:
        while True:
            try:
                child.wait(HEARTBEAT_S)
                break
            except subprocess.TimeoutExpired:
                say(f"{name}: {time.monotonic() - began:.0f} s so far")
    finally:
        end(child)
    reader.join()
    if child.returncode == 0:
        say(f"{name}: done in {time.monotonic() - began:.1f} s")
        return
    output = "".join(lines)
    if NO_NETWORK.search(output):
        raise StepError(f"{name}: no network; the first set-up downloads packages, so connect and run this again")
    raise StepError(f"{name}: failed\n{output.rstrip()}")


def attended(command: list[str]) -> int:
    """Run a command on our own terminal; its exit code."""
    child = subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL)
    children.add(child)
    try:
        return child.wait()
    finally:
        end(child)


def end(child: Child) -> None:
    """Forget a child; one that still runs, because we are being stopped, is stopped first."""
    if child.poll() is None:
        child.terminate()
        child.wait()
    children.discard(child)


def leave(_signal: int, _frame: object) -> None:
    """On SIGTERM: pass it on to whatever runs, in whichever thread it was started."""
    for child in tuple(children):
        child.terminate()
    sys.exit(128 + signal.SIGTERM)


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of what we start: as if the virtual environment were active."""
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH"}}
    path = os.pathsep.join([str(VENV / "bin"), os.environ.get("PATH", os.defpath)])
    return {**env, "VIRTUAL_ENV": str(VENV), "PATH": path, "PYTHONUNBUFFERED": "1", **(extra or {})}


def say(line: str) -> None:
    """Tell the reader what happens; at once, also when it goes to a file."""
    print(f"[dev] {line}", flush=True)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  the one file that an older Python gets to see
        sys.exit(f"Darkroom needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: python3.11 dev.py run")
    sys.exit(main(sys.argv[1:]))
