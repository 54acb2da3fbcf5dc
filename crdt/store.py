"""What a room needs of SQL: the update log, snapshots, the keeper's lease, and the mirror in `workflow_nodes`."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crdt import protocol
from crdt.database import insert_into, read_only
from crdt.growth_store import GrowthStore
from crdt.mirror import write_mirror
from crdt.rows import EdgeRow, Head, Loaded, Mirror, NodeRow
from crdt.tables import document_updates, documents, processes, workflows
from crdt.transactions import Transactions

__all__ = ["EdgeRow", "Head", "Loaded", "Mirror", "NodeRow", "SqlStore"]

LEASE_S = 6.0
T = TypeVar("T")
NOWHERE = -1
"""As `documents.mirror_seq`: the rows follow no number in the log."""


class SqlStore:
    """The log, snapshots, lease and mirror of every room, in SQL.

    No write goes without a number (`seq`, given under the room's row lock, so per room from 1 without holes) or
    a fence (a keeper that lost its lease changes nothing).

    Args:
        engine: From `crdt.database.create_engine`.
        process_id: Who we are in `documents.keeper` and `processes.id`.
        lease_s: How long a process that stopped beating still counts as alive (seconds).
        transactions: Shared with whoever else writes in this process.

    """

    def __init__(
        self,
        engine: AsyncEngine,
        process_id: str,
        lease_s: float = LEASE_S,
        transactions: Transactions | None = None,
    ) -> None:
        self._engine = engine
        self._reading = read_only(engine)
        self._process_id = process_id
        self._lease = dt.timedelta(seconds=lease_s)
        self._sqlite = engine.dialect.name == "sqlite"
        self._transactions = transactions or Transactions(engine)
        self.growth = GrowthStore(engine, process_id)

    @property
    def engine(self) -> AsyncEngine:
        """Where everything is."""
        return self._engine

    async def ensure(self, room: str) -> None:
        """Commit the rows of a workflow and its document unless they are there."""
        async with self._engine.begin() as connection:
            await self.ensure_in(connection, room)

    async def ensure_in(self, connection: AsyncConnection, room: str) -> None:
        """As `ensure`, inside the caller's transaction."""
        now = _now()
        await connection.execute(
            self._insert(workflows).values(id=room, title="", created_at=now, updated_at=now).on_conflict_do_nothing()
        )
        await connection.execute(self._insert(documents).values(id=room).on_conflict_do_nothing())

    async def append(self, updates: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        """Commit one row per room, holding the given updates in order.

        Rooms are locked ordered by id, so two batches cannot deadlock; the lock lives until the commit, so numbers
        become visible in their order.

        Returns:
            The number each room's row got.

        """
        now = _now()
        if self._transactions.writer is not None:
            return await self._transactions.writer.append({room: pack(updates[room]) for room in updates}, now)
        rooms = sorted(updates)
        async with self._engine.begin() as connection:
            query = sa.select(documents.c.id, documents.c.seq).where(documents.c.id.in_(rooms)).order_by(documents.c.id)
            heads = {row.id: row.seq for row in await connection.execute(query.with_for_update())}
            numbers = {room: heads[room] + 1 for room in rooms}
            await connection.execute(
                sa.update(documents).where(documents.c.id == sa.bindparam("room")).values(seq=sa.bindparam("number")),
                [{"room": room, "number": number} for room, number in numbers.items()],
            )
            await connection.execute(
                sa.insert(document_updates),
                [{"room": r, "seq": numbers[r], "update": pack(updates[r]), "at": now} for r in rooms],
            )
        return numbers

    async def load(self, room: str, after: int = 0) -> Loaded | None:
        """The document of a room, read in one snapshot of the database; None when there is no such row.

        Args:
            room: The workflow id.
            after: Leave out what a cursor at this number has seen. Below `snapshot_seq` the snapshot comes along.

        """
        async with self._reading.connect() as connection:
            if not self._sqlite:
                await connection.execution_options(isolation_level="REPEATABLE READ")
            row = (await connection.execute(sa.select(documents).where(documents.c.id == room))).one_or_none()
            if row is None:
                return None
            snapshot = row.snapshot if after < row.snapshot_seq else None
            start = max(after, row.snapshot_seq)
            query = sa.select(document_updates.c.update).where(
                document_updates.c.room == room, document_updates.c.seq > start, document_updates.c.seq <= row.seq
            )
            packed = (await connection.execute(query.order_by(document_updates.c.seq))).scalars()
            updates = tuple(update for pack_ in packed for update in unpack(pack_))
            return Loaded(row.seq, snapshot, updates, row.mirror_seq, row.guard)

    async def heads(self, rooms: Iterable[str]) -> dict[str, Head]:
        """Where the logs of these rooms stand."""
        async with self._reading.connect() as connection:
            free = sa.or_(documents.c.keeper.is_(None), self._keeper_is_dead()).label("free")
            query = sa.select(documents.c.id, documents.c.seq, documents.c.fence, free)
            rows = await connection.execute(query.where(documents.c.id.in_(list(rooms))))
            return {row.id: Head(row.seq, row.fence, free=bool(row.free)) for row in rows}

    async def take(self, room: str) -> int | None:
        """Become the room's keeper if nobody alive is.

        Returns:
            The fence: higher at every take, also by the same process; None when another process keeps the room.

        """
        free = sa.or_(documents.c.keeper.is_(None), documents.c.keeper == self._process_id, self._keeper_is_dead())
        statement = (
            sa.update(documents)
            .where(documents.c.id == room, free)
            .values(keeper=self._process_id, fence=documents.c.fence + 1)
            .returning(documents.c.fence)
        )
        async with self._engine.begin() as connection:
            fence: int | None = (await connection.execute(statement)).scalar_one_or_none()
            return fence

    async def release(self, room: str, fence: int) -> None:
        """Stop keeping a room taken with this fence; whoever has it open may take it at once."""
        mine = sa.and_(documents.c.id == room, documents.c.keeper == self._process_id, documents.c.fence == fence)
        async with self._engine.begin() as connection:
            await connection.execute(sa.update(documents).where(mine).values(keeper=None))

    async def beat(self, *, first: bool = False) -> bool:
        """Tell the others that this process lives.

        Args:
            first: Register: a new process, or one whose lease ran out.

        Returns:
            False when the lease had run out: every room must be taken again.

        """
        async with self._engine.begin() as connection:
            now = await self._database_now(connection)
            if first:
                insert = self._insert(processes).values(id=self._process_id, seen_at=now)
                await connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_={"seen_at": now}))
                return True
            alive = sa.and_(processes.c.id == self._process_id, processes.c.seen_at > now - self._lease)
            result = await connection.execute(sa.update(processes).where(alive).values(seen_at=now))
            return result.rowcount == 1

    async def retire(self) -> None:
        """Delete this process's row and give up every room it still keeps."""
        async with self._engine.begin() as connection:
            mine = documents.c.keeper == self._process_id
            await connection.execute(sa.update(documents).where(mine).values(keeper=None))
            await connection.execute(sa.delete(processes).where(processes.c.id == self._process_id))

    async def snapshot(self, room: str, state: bytes, seq: int, fence: int, guard: bytes | None = None) -> bool:
        """Store the whole state and drop the log it covers, in one transaction.

        Args:
            room: The workflow id.
            state: Yjs update (v1) holding at least every log row up to `seq`.
            seq: The contiguous cursor of the room.
            fence: The keeper's; a stale one changes nothing.
            guard: Of a compacted document, when it changed since it was stored.

        Returns:
            Whether it was stored.

        """
        values = {"snapshot": state, "snapshot_seq": seq, **({} if guard is None else {"guard": guard})}
        mine = sa.and_(documents.c.id == room, documents.c.fence == fence, documents.c.keeper == self._process_id)
        async with self._engine.begin() as connection:
            statement = sa.update(documents).where(mine, documents.c.snapshot_seq < seq)
            result = await connection.execute(statement.values(values))
            if result.rowcount != 1:
                return False
            covered = sa.and_(document_updates.c.room == room, document_updates.c.seq <= seq)
            await connection.execute(sa.delete(document_updates).where(covered))
            return True

    async def mirror(self, room: str, mirror: Mirror, fence: int) -> bool:
        """Commit what changed in the document to `workflow_nodes` and `workflow_edges`.

        Server-owned keys of `node_data` are never taken from the document: `jobs.runs` writes them.

        Returns:
            Whether it was written: a stale fence changes nothing.

        """

        def write(connection: sa.Connection) -> bool:
            query = sa.select(documents.c.fence, documents.c.keeper).where(documents.c.id == room).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None or row.fence != fence or row.keeper != self._process_id:
                return False
            write_mirror(connection, room, mirror, _now())
            # With edits still on their way, a crash may take back what the rows show: whoever opens next writes them.
            follows = mirror.seq if mirror.seq is not None else NOWHERE
            mine = documents.c.id == room
            connection.execute(sa.update(documents).where(mine).values(mirror_seq=follows))
            return True

        return await self._transactions.run(write)

    def _keeper_is_dead(self) -> sa.ColumnElement[bool]:
        if self._sqlite:
            # One process by construction: a killed one left its name behind, and nobody should wait for its lease.
            return sa.true()
        alive = sa.select(processes.c.id).where(processes.c.seen_at > sa.func.now() - self._lease)
        return documents.c.keeper.not_in(alive)

    async def _database_now(self, connection: AsyncConnection) -> dt.datetime:
        if self._sqlite:
            return _now()
        return (await connection.execute(sa.select(sa.func.now()))).scalar_one()

    def _insert(self, table: sa.Table) -> Any:
        return insert_into(self._engine.dialect.name, table)


def pack(updates: Sequence[bytes]) -> bytes:
    """One log row: each update behind its length. They are not merged: one may wait for a parent still to come."""
    return b"".join(map(protocol.var_bytes, updates))


def unpack(row: bytes) -> list[bytes]:
    """The updates of a log row."""
    reader = protocol.Reader(row)
    updates = []
    while not reader.exhausted:
        updates.append(reader.var_bytes())
    return updates


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
