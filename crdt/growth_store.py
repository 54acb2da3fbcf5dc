"""What SQL keeps so that a document stays small: frontiers, archives, and the numbers of heals."""

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crdt.database import read_only
from crdt.rows import Ledger, Size
from crdt.tables import document_archives, document_frontiers, document_updates, documents


@dataclass(frozen=True, slots=True)
class CompactedRow:
    """A compaction as it is stored: everything or nothing."""

    state: bytes
    """Yjs update (v1)."""
    seq: int
    """The number in the log up to which `state` goes."""
    guard: bytes
    archive: bytes
    size: Size
    at: dt.datetime


class GrowthStore:
    """Part of `crdt.store.SqlStore`; the same rule: no write of the keeper without its fence.

    Args:
        engine: From `crdt.database.create_engine`.
        process_id: Who we are in `documents.keeper`.

    """

    def __init__(self, engine: AsyncEngine, process_id: str) -> None:
        self._engine = engine
        self._reading = read_only(engine)
        self._process_id = process_id

    async def ledger(self, room: str, before: dt.datetime) -> Ledger | None:
        """How the document grew; None when there is no such room.

        Args:
            room: The workflow id.
            before: When the window begins: the frontier is not younger.

        """
        frontiers, archives = document_frontiers.c, document_archives.c
        log = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(document_updates.c.update)), 0))
        query = sa.select(
            documents.c.compacted_at,
            sa.func.coalesce(sa.func.length(documents.c.snapshot), 0).label("snapshot"),
            log.where(document_updates.c.room == room).scalar_subquery().label("log"),
            sa.select(sa.func.max(frontiers.at)).where(frontiers.room == room).scalar_subquery().label("noted_at"),
        )
        frontier = sa.select(frontiers.vector).where(frontiers.room == room, frontiers.at <= before)
        last = sa.select(archives.bytes, archives.structs, archives.map_keys, archives.units).where(
            archives.room == room
        )
        async with self._reading.connect() as connection:
            row = (await connection.execute(query.where(documents.c.id == room))).one_or_none()
            if row is None:
                return None
            vector = (await connection.execute(frontier.order_by(frontiers.at.desc()).limit(1))).scalar_one_or_none()
            size = (await connection.execute(last.order_by(archives.number.desc()).limit(1))).one_or_none()
        return Ledger(
            stored_bytes=row.snapshot + int(row.log),
            frontier=vector,
            noted_at=row.noted_at,
            compacted_at=row.compacted_at,
            size=Size(*size) if size is not None else None,
        )

    async def note_frontier(
        self, room: str, vector: bytes, fence: int, *, at: dt.datetime, keep_after: dt.datetime
    ) -> bool:
        """Commit the state vector the room has now.

        Args:
            room: The workflow id.
            vector: State vector (v1).
            fence: The keeper's; a stale one changes nothing.
            at: Now.
            keep_after: Older ones are removed, all but the latest of them.

        """
        table, columns = document_frontiers, document_frontiers.c
        async with self._engine.begin() as connection:
            if not await self._keeps(connection, room, fence):
                return False
            await connection.execute(sa.delete(table).where(columns.room == room, columns.at == at))
            await connection.execute(sa.insert(table).values(room=room, at=at, vector=vector))
            old = sa.select(sa.func.max(columns.at)).where(columns.room == room, columns.at <= keep_after)
            latest_old = (await connection.execute(old)).scalar_one_or_none()
            if latest_old is not None:
                await connection.execute(sa.delete(table).where(columns.room == room, columns.at < latest_old))
            return True

    async def compacted(self, room: str, row: CompactedRow, fence: int, *, keep_after: dt.datetime) -> bool:
        """Commit a compacted document: snapshot, guard and archive, and the end of the log it covers.

        Args:
            room: The workflow id.
            row: What to store.
            fence: The keeper's; a stale one changes nothing.
            keep_after: Archives older than this are removed.

        Returns:
            Whether it was stored; not when a snapshot of a later state is there.

        """
        archives = document_archives.c
        async with self._engine.begin() as connection:
            mine = sa.and_(documents.c.id == room, documents.c.fence == fence, documents.c.keeper == self._process_id)
            result = await connection.execute(
                sa.update(documents)
                .where(mine, documents.c.snapshot_seq <= row.seq)
                .values(snapshot=row.state, snapshot_seq=row.seq, guard=row.guard, compacted_at=row.at)
            )
            if result.rowcount != 1:
                return False
            covered = sa.and_(document_updates.c.room == room, document_updates.c.seq <= row.seq)
            await connection.execute(sa.delete(document_updates).where(covered))
            last = sa.select(sa.func.max(archives.number)).where(archives.room == room)
            number = ((await connection.execute(last)).scalar_one_or_none() or 0) + 1
            await connection.execute(
                sa.insert(document_archives).values(
                    room=room,
                    number=number,
                    at=row.at,
                    archive=row.archive,
                    bytes=row.size.bytes,
                    structs=row.size.structs,
                    map_keys=row.size.keys,
                    units=row.size.units,
                )
            )
            old = sa.and_(archives.room == room, archives.at < keep_after, archives.number < number)
            await connection.execute(sa.delete(document_archives).where(old))
            return True

    async def archives(self, room: str) -> list[bytes]:
        """Every archive that is kept, the latest first, see `crdt.archive.Archive`."""
        columns = document_archives.c
        async with self._reading.connect() as connection:
            query = sa.select(columns.archive).where(columns.room == room).order_by(columns.number.desc())
            return list((await connection.execute(query)).scalars())

    async def reserve_heals(self, room: str, count: int) -> int:
        """Commit that this many numbers of heals are given out.

        Returns:
            The first of them; nobody is ever given one of them again.

        """
        statement = sa.update(documents).where(documents.c.id == room).values(heals=documents.c.heals + count)
        async with self._engine.begin() as connection:
            given: int = (await connection.execute(statement.returning(documents.c.heals))).scalar_one()
            return given - count

    async def _keeps(self, connection: AsyncConnection, room: str, fence: int) -> bool:
        query = sa.select(documents.c.fence, documents.c.keeper).where(documents.c.id == room).with_for_update()
        row = (await connection.execute(query)).one_or_none()
        return row is not None and row.fence == fence and row.keeper == self._process_id
