"""`darkroom doctor`: reads what there is, beside a running server or without one, and changes nothing."""

import datetime as dt
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from pycrdt import Doc, merge_updates
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas
from crdt.database import create_engine, read_only
from crdt.errors import BadUpdate
from crdt.rows import Loaded
from crdt.store import LEASE_S, SqlStore, pack
from crdt.tables import document_updates, documents, processes, quarantined_updates
from crdt.update import decode, decode_vector
from jobs.liveness import LEASE_S as WORKER_LEASE_S
from jobs.tables import runs, workers
from server.diagnosis import STUCK_RUN_S, Report, RoomFacts, SiteFacts, diagnose
from server.errors import StartupError
from server.files import probe_folder
from server.migrate import config, reason
from server.settings import Settings

REDIS_S: Final = 2.0
MOST_ROOMS: Final = 50
"""Canvases looked at when none is named: the largest."""


async def examine(settings: Settings, images: Path, workflow_id: str | None, dump: Path | None = None) -> Report:
    """Find out what is wrong.

    Args:
        settings: Of the server.
        images: Where it stores pictures.
        workflow_id: Look at this canvas alone, and closer.
        dump: Where to write its document.

    Raises:
        StartupError: There is no such canvas, or its document cannot be written.

    """
    site = await _ask_redis(settings, _machine(settings, images))
    missing = _missing_file(settings)
    if missing is not None:
        return diagnose(settings, replace(site, database_error=missing), ())
    engine = create_engine(settings.database)
    try:
        site = await _read_site(read_only(engine), site)
        rooms = await _read_rooms(engine, workflow_id, dump) if site.schema is not None else ()
    except (SQLAlchemyError, OSError) as error:
        return diagnose(settings, replace(site, database_error=reason(error)), ())
    finally:
        await engine.dispose()
    return diagnose(settings, site, rooms)


def _machine(settings: Settings, images: Path) -> SiteFacts:
    newest = ScriptDirectory.from_config(config()).get_current_head()
    try:
        free = shutil.disk_usage(settings.data).free
    except OSError:
        free = None
    try:
        probe_folder(images)
    except OSError as error:
        return SiteFacts(newest_schema=newest, disk_free_bytes=free, images_error=error.strerror or str(error))
    return SiteFacts(newest_schema=newest, disk_free_bytes=free)


async def _ask_redis(settings: Settings, site: SiteFacts) -> SiteFacts:
    if settings.redis_url is None:
        return site
    url = settings.redis_url.get_secret_value()
    async with Redis.from_url(url, retry=None, socket_timeout=REDIS_S, socket_connect_timeout=REDIS_S) as redis:
        try:
            await redis.ping()
        except (RedisError, OSError) as error:
            return replace(site, redis_error=type(error).__name__)
        try:
            policy = await redis.config_get("maxmemory-policy")
        except RedisError:
            return site  # Hosted ones do not tell.
        return replace(site, redis_policy=next(iter(policy.values()), None))


def _missing_file(settings: Settings) -> str | None:
    """Why a SQLite file cannot be looked at: to open one that is not there would make it."""
    url = sa.make_url(settings.database)
    if url.get_backend_name() != "sqlite" or Path(str(url.database)).is_file():
        return None
    return f"there is no file {url.database} yet: start the server once, or set DARKROOM_DATA as the server has it"


async def _read_site(engine: AsyncEngine, site: SiteFacts) -> SiteFacts:
    now = dt.datetime.now(dt.UTC)
    late = now - dt.timedelta(seconds=STUCK_RUN_S)
    async with engine.connect() as connection:
        tables = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
        if "alembic_version" not in tables or documents.name not in tables:
            return site
        schema = (await connection.execute(sa.text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()
        count = (await connection.execute(sa.select(sa.func.count()).select_from(documents))).scalar_one()
        stuck = sa.select(runs.c.id).where(
            runs.c.status.in_(("pending", "running")),
            runs.c.updated_at < late,
            sa.or_(runs.c.resume_at.is_(None), runs.c.resume_at < late),
        )
        found = tuple((await connection.execute(stuck.order_by(runs.c.id).limit(1000))).scalars())
        living = await _living(connection, now)
        since = now - dt.timedelta(seconds=WORKER_LEASE_S)
        working = sa.select(sa.func.count()).where(workers.c.seen_at > since)
        at_work = (await connection.execute(working)).scalar_one()
    return replace(site, schema=schema, rooms=count, serving=len(living), workers=at_work, stuck_runs=found)


async def _living(connection: Any, now: dt.datetime) -> frozenset[str]:
    alive = sa.select(processes.c.id).where(processes.c.seen_at > now - dt.timedelta(seconds=LEASE_S))
    return frozenset((await connection.execute(alive)).scalars())


async def _read_rooms(engine: AsyncEngine, workflow_id: str | None, dump: Path | None) -> tuple[RoomFacts, ...]:
    store = SqlStore(engine, "doctor")
    now = dt.datetime.now(dt.UTC)
    log = (
        sa.select(
            document_updates.c.room,
            sa.func.count().label("rows"),
            sa.func.sum(sa.func.length(document_updates.c.update)).label("bytes"),
            sa.func.min(document_updates.c.at, type_=document_updates.c.at.type).label("oldest"),
        )
        .group_by(document_updates.c.room)
        .subquery()
    )
    size = sa.func.coalesce(sa.func.length(documents.c.snapshot), 0)
    columns = [column for column in documents.c if column.name != "snapshot"]
    aside = sa.select(sa.func.count()).where(quarantined_updates.c.room == documents.c.id).scalar_subquery()
    query = sa.select(
        *columns, size.label("snapshot_bytes"), log.c.rows, log.c.bytes, log.c.oldest, aside.label("set_aside")
    )
    query = query.outerjoin(log, log.c.room == documents.c.id)
    if workflow_id is not None:
        query = query.where(documents.c.id == workflow_id)
    query = query.order_by((size + sa.func.coalesce(log.c.bytes, 0)).desc()).limit(MOST_ROOMS)
    async with read_only(engine).connect() as connection:
        living = await _living(connection, now)
        rows = (await connection.execute(query)).mappings().all()
    if workflow_id is not None and not rows:
        raise StartupError(f"there is no canvas {workflow_id!r} in this database")
    found = []
    for row in rows:
        facts = _facts(row, living, now)
        loaded = await store.load(facts.room)
        if loaded is not None:
            found.append(_weighed(facts, loaded, closely=workflow_id is not None))
            if dump is not None:
                write_dump(loaded, dump)
    return tuple(found)


def _facts(row: Mapping[Any, Any], living: frozenset[str], now: dt.datetime) -> RoomFacts:
    return RoomFacts(
        room=row["id"],
        seq=row["seq"],
        snapshot_seq=row["snapshot_seq"],
        snapshot_bytes=row["snapshot_bytes"],
        log_rows=row["rows"] or 0,
        log_bytes=int(row["bytes"] or 0),
        log_age_s=(now - row["oldest"]).total_seconds() if row["oldest"] is not None else 0.0,
        mirror_seq=row["mirror_seq"],
        keeper=row["keeper"],
        keeper_lives=row["keeper"] in living,
        set_aside=row["set_aside"],
    )


def _weighed(facts: RoomFacts, loaded: Loaded, *, closely: bool) -> RoomFacts:
    """The facts with what only loading a document tells."""
    doc: canvas.CanvasDoc = Doc()
    try:
        for update in _updates(loaded):
            doc.apply_update(update)
        encoded = doc.get_update()
        structs = sum(len(section.structs) for section in decode(encoded).sections) if closely else None
        clients = len(decode_vector(doc.get_state()))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BadUpdate as error:
        return replace(facts, broken=str(error))
    except BaseException as error:  # noqa: BLE001 - a panic inside yrs is no Exception
        return replace(facts, broken=f"{type(error).__name__}: {str(error)[:200]}")
    return replace(
        facts,
        document_bytes=len(encoded),
        structs=structs,
        clients=clients,
        nodes=len(canvas.node_ids(doc)),
    )


def write_dump(loaded: Loaded, path: Path) -> None:
    """Write a document as one Yjs update (v1), or, if its parts cannot be merged, each part behind its length.

    Raises:
        StartupError: The file is there already, or cannot be written.

    """
    updates = _updates(loaded)
    try:
        whole = merge_updates(*updates) if updates else b"\x00\x00"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - a panic inside yrs is no Exception
        whole = pack(updates)
    try:
        # What people wrote is in it.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(whole)
    except OSError as error:
        raise StartupError(f"--room-dump: cannot write {path}: {error.strerror}") from error


def _updates(loaded: Loaded) -> list[bytes]:
    return [*([loaded.snapshot] if loaded.snapshot is not None else []), *loaded.updates]
