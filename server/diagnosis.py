"""What is wrong with a server and its canvases, from facts that somebody else has read. Pure."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Final

from server.settings import Settings, is_loopback

LITTLE_DISK_BYTES: Final = 1024**3
NO_DISK_BYTES: Final = 100 * 1024**2
MANY_CLIENTS: Final = 2_000
"""Each is carried in every state vector; from here on joining gets slower."""
LONG_LOG_ROWS: Final = 2_000
"""Several times what the keeper lets pass before it takes a snapshot."""
OLD_LOG_S: Final = 3600.0
STUCK_RUN_S: Final = 900.0


class Level(Enum):
    """How bad it is."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what to do about it."""

    level: Level
    about: str
    """What it is about, for programs."""
    text: str
    room: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "level": self.level.value}


@dataclass(frozen=True, slots=True)
class RoomFacts:
    """One document as SQL has it."""

    room: str
    seq: int
    snapshot_seq: int
    snapshot_bytes: int
    log_rows: int
    log_bytes: int
    log_age_s: float
    """Of the oldest row that no snapshot covers."""
    mirror_seq: int
    keeper: str | None
    keeper_lives: bool
    document_bytes: int | None = None
    """None of a document that was not loaded."""
    structs: int | None = None
    clients: int | None = None
    nodes: int | None = None
    broken: str | None = None
    """Why it does not load."""
    set_aside: int = 0
    """Updates that it could not take, kept in `quarantined_updates`."""


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What does not belong to one canvas."""

    database_error: str | None = None
    schema: str | None = None
    newest_schema: str | None = None
    rooms: int = 0
    serving: int = 0
    """Processes with canvases that live."""
    workers: int = 0
    """Workers that live."""
    redis_error: str | None = None
    redis_policy: str | None = None
    """What Redis does when its memory is full; None where it does not tell."""
    disk_free_bytes: int | None = None
    """None when the folder cannot be looked at."""
    images_error: str | None = None
    stuck_runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found."""

    site: SiteFacts
    rooms: tuple[RoomFacts, ...] = ()
    findings: tuple[Finding, ...] = field(default=())

    @property
    def sound(self) -> bool:
        """Whether nothing is an error."""
        return all(finding.level is not Level.ERROR for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "sound": self.sound,
            "findings": [finding.to_json() for finding in self.findings],
            "site": asdict(self.site),
            "rooms": [asdict(room) for room in self.rooms],
        }


def diagnose(settings: Settings, site: SiteFacts, rooms: tuple[RoomFacts, ...]) -> Report:
    """Everything that is wrong."""
    limit = settings.max_document_bytes
    of_rooms = (finding for room in rooms for finding in _room(room, limit))
    found = [*_settings(settings), *_fleet(settings, site), *_site(site), *of_rooms]
    return Report(site, rooms, tuple(found))


def _settings(settings: Settings) -> Iterator[Finding]:
    public = settings.app_url or ""
    host = public.partition("://")[2].partition("/")[0].partition(":")[0]
    if settings.secret is not None and public.startswith("http://") and not is_loopback(host):
        yield _warning("settings", "APP_URL is http: access tokens travel readable; put the server behind https")
    if not is_loopback(settings.host) and settings.app_url is None:
        yield _warning("settings", "APP_URL is not set: pictures get addresses that only this machine can open")
    if public.startswith("https://") and not settings.trusted_proxies:
        yield _warning("settings", "DARKROOM_TRUSTED_PROXIES is empty: people behind the https proxy share one limit")
    for person, each, name in (
        (settings.user_messages_per_s, settings.messages_per_s, "MESSAGES"),
        (settings.user_bytes_per_s, settings.bytes_per_s, "BYTES"),
    ):
        if person and (person < each or not each):
            yield _warning("settings", f"DARKROOM_USER_{name}_PER_S is less than one connection of theirs may send")
    if settings.max_message_bytes > settings.max_document_bytes:
        yield _warning("settings", "DARKROOM_MAX_MESSAGE_BYTES is more than DARKROOM_MAX_DOCUMENT_BYTES takes")
    if settings.redis_url is not None and settings.database_url is None:
        yield _warning("settings", "REDIS_URL is set, but SQLite serves one process only: set DATABASE_URL to Postgres")


def _fleet(settings: Settings, site: SiteFacts) -> Iterator[Finding]:
    if site.redis_error is not None:
        text = f"Redis does not answer ({site.redis_error}): jobs wait, and processes hear each other with a delay"
        yield _error("redis", f"{text}; start it, or set REDIS_URL right")
    if site.redis_policy not in {None, "noeviction"}:
        text = f"Redis throws jobs away when its memory is full (maxmemory-policy {site.redis_policy})"
        yield _warning("redis", f"{text}: set it to noeviction")
    if settings.role == "web" and site.database_error is None and not site.workers:
        yield _error("workers", "no worker is alive, so runs wait: start one with darkroom serve --role worker")
    if settings.role == "worker" and settings.app_url is None:
        yield _warning("settings", "APP_URL is not set: pictures of this worker get addresses that lead to the worker")


def _site(site: SiteFacts) -> Iterator[Finding]:
    if site.database_error is not None:
        yield _error("database", f"the database cannot be read: {site.database_error}")
    elif site.schema != site.newest_schema:
        yield _error(
            "schema",
            f"the database has schema {site.schema or 'none'} and this release {site.newest_schema}: start the server, "
            "which brings it up to date, or install the release that wrote it",
        )
    if site.disk_free_bytes is None:
        yield _error("disk", "the folder DARKROOM_DATA cannot be looked at: does it exist?")
    elif site.disk_free_bytes < NO_DISK_BYTES:
        yield _error("disk", f"only {_size(site.disk_free_bytes)} are free for DARKROOM_DATA: make room now")
    elif site.disk_free_bytes < LITTLE_DISK_BYTES:
        yield _warning("disk", f"only {_size(site.disk_free_bytes)} are free for DARKROOM_DATA: make room soon")
    if site.images_error is not None:
        yield _error("images", f"pictures cannot be stored: {site.images_error}")
    if site.stuck_runs:
        named = ", ".join(site.stuck_runs[:5])
        yield _error("runs", f"{len(site.stuck_runs)} runs have not moved for a while ({named}): does a worker run?")


def _room(facts: RoomFacts, limit_bytes: int) -> Iterator[Finding]:
    def told(level: Level, about: str, text: str) -> Finding:
        return Finding(level, about, text, facts.room)

    if facts.broken is not None:
        yield told(Level.ERROR, "document", f"does not load ({facts.broken}): --room-dump saves it for support")
    expected = facts.seq - facts.snapshot_seq
    if facts.log_rows != expected:
        text = f"the log has {facts.log_rows:,} rows instead of {expected:,}: edits are lost, restore a backup"
        yield told(Level.ERROR, "log", text)
    if facts.keeper is not None and not facts.keeper_lives:
        yield told(Level.WARNING, "keeper", f"was kept by {facts.keeper[:8]}, which is gone: the next visit takes over")
    unkept = facts.keeper is None or not facts.keeper_lives
    if facts.log_rows > LONG_LOG_ROWS or (unkept and facts.log_rows and facts.log_age_s > OLD_LOG_S):
        text = f"{facts.log_rows:,} log rows, the oldest {facts.log_age_s / 3600:.1f} h old, are in no snapshot: "
        yield told(Level.WARNING, "snapshot", text + "open the canvas and leave it")
    if facts.mirror_seq < facts.seq and unkept:
        text = f"workflow_nodes is {facts.seq - facts.mirror_seq:,} rows behind: open the canvas"
        yield told(Level.WARNING, "mirror", text)
    yield from _content(facts, limit_bytes)


def _content(facts: RoomFacts, limit_bytes: int) -> Iterator[Finding]:
    def told(level: Level, about: str, text: str) -> Finding:
        return Finding(level, about, text, facts.room)

    if facts.set_aside:
        text = f"{facts.set_aside} updates could not be applied: report them, they are in quarantined_updates"
        yield told(Level.WARNING, "quarantine", text)
    if facts.clients is not None and facts.clients > MANY_CLIENTS:
        yield told(Level.WARNING, "clients", f"{facts.clients:,} client ids: copy the canvas into a new one")
    size = facts.document_bytes or 0
    if size > limit_bytes:
        yield told(Level.ERROR, "size", f"{_size(size)}, more than DARKROOM_MAX_DOCUMENT_BYTES: nobody can add to it")
    elif size > limit_bytes * 0.8:
        yield told(Level.WARNING, "size", f"{_size(size)}, near DARKROOM_MAX_DOCUMENT_BYTES: delete something")


def _warning(about: str, text: str) -> Finding:
    return Finding(Level.WARNING, about, text)


def _error(about: str, text: str) -> Finding:
    return Finding(Level.ERROR, about, text)


def render(report: Report) -> str:
    """The report for people."""
    site = report.site
    serving = f"{site.serving} serving processes, {site.workers} workers"
    lines = [f"{site.rooms:,} canvases, {serving}, schema {site.schema or 'none'}"]
    if site.disk_free_bytes is not None:
        lines.append(f"{_size(site.disk_free_bytes)} free for pictures and SQLite")
    lines += [_line(facts) for facts in report.rooms]
    lines += [f"{f.level.value}: {f'canvas {f.room}: ' if f.room else ''}{f.text}" for f in report.findings]
    lines.append("all is well" if not report.findings else f"{len(report.findings)} findings")
    return "\n".join(lines)


def _line(facts: RoomFacts) -> str:
    parts = [f"snapshot {_size(facts.snapshot_bytes)}", f"log {facts.log_rows:,} rows, {_size(facts.log_bytes)}"]
    if facts.document_bytes is not None:
        parts.append(f"document {_size(facts.document_bytes)}, {facts.nodes} nodes, {facts.clients} client ids")
    if facts.structs is not None:
        parts.append(f"{facts.structs:,} structs")
    parts.append(f"kept by {facts.keeper[:8]}" if facts.keeper and facts.keeper_lives else "not kept")
    return f"canvas {facts.room}: {', '.join(parts)}"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004 - the next unit
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
