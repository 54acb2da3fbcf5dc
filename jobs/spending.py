"""What was spent, on what and by whom, and the budgets that limit it."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crdt.database import insert_into, read_only
from crdt.transactions import Transactions
from jobs.budgets import Budget, Period, Scope, Used, budget_from_row, used_of
from jobs.ledger import AMBIGUOUS
from jobs.reading import utcnow
from jobs.tables import budgets, run_costs, runs

MAX_BUDGETS: Final = 1_000
"""Told in one answer."""
MAX_LINES: Final = 400
"""Days, and makers with their models, told in one answer."""


@dataclass(frozen=True, slots=True)
class Bill:
    """A row of `run_costs`."""

    provider: str
    model: str
    attempt: int
    usd_micros: int
    source: str
    billed_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Total:
    """So many bills, and what they come to; of those, what may not have been billed at all."""

    usd_micros: int
    bills: int
    ambiguous_usd_micros: int
    ambiguous_bills: int


@dataclass(frozen=True, slots=True)
class Question:
    """Whose spending is asked for; None is anybody's, or any time."""

    workflow_id: str | None = None
    user_id: str | None = None
    provider: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was spent.

    Attributes:
        total: All of it.
        reserved_usd_micros: Held back for runs that have not ended.
        makers: By (provider, model), the dearest first.
        days: By day (UTC), the latest first.

    """

    total: Total
    reserved_usd_micros: int
    makers: dict[tuple[str, str], Total] = field(default_factory=dict)
    days: dict[dt.date, Total] = field(default_factory=dict)


class Spending:
    """Bills and budgets in SQL; bills are written by `jobs.ledger`.

    Args:
        engine: From `crdt.database.create_engine`.
        clock: The time, aware UTC.
        transactions: Shared with whoever else writes in this process.

    """

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Callable[[], dt.datetime] = utcnow,
        transactions: Transactions | None = None,
    ) -> None:
        self._engine = engine
        self._transactions = transactions or Transactions(engine)
        self._reading = read_only(engine)
        self._clock = clock

    async def bills(self, run_id: str) -> list[Bill]:
        """Every bill of a run, the first one first."""
        query = sa.select(run_costs).where(run_costs.c.run_id == run_id).order_by(run_costs.c.number)
        async with self._reading.connect() as connection:
            return [
                Bill(row.provider, row.model, row.attempt, row.usd_micros, row.source, row.billed_at)
                for row in await connection.execute(query)
            ]

    async def report(self, question: Question) -> Report:
        """What was spent."""
        async with self._reading.connect() as connection:
            total = (await connection.execute(_sums().where(*_asked(question)))).one()
            makers = _sums(run_costs.c.provider, run_costs.c.model).where(*_asked(question))
            makers = makers.group_by(run_costs.c.provider, run_costs.c.model)
            by_maker = await connection.execute(makers.order_by(sa.desc("usd_micros")).limit(MAX_LINES))
            day = _day(connection)
            days = _sums(day.label("day")).where(*_asked(question)).group_by(day).order_by(sa.desc("day"))
            by_day = await connection.execute(days.limit(MAX_LINES))
            return Report(
                _total(total),
                await self._reserved(connection, question),
                {(row.provider, row.model): _total(row) for row in by_maker},
                {dt.date.fromisoformat(str(row.day)): _total(row) for row in by_day},
            )

    async def budgets(self, workflow_id: str | None = None) -> list[tuple[Budget, Used]]:
        """Every budget with what is used of it, or those of one workflow."""
        query = sa.select(budgets).order_by(budgets.c.scope, budgets.c.key, budgets.c.period).limit(MAX_BUDGETS)
        if workflow_id is not None:
            query = query.where(budgets.c.scope == Scope.WORKFLOW.value, budgets.c.key == workflow_id)
        now = self._clock()
        async with self._reading.connect() as connection:
            found = [budget_from_row(row) for row in await connection.execute(query)]
            return await connection.run_sync(lambda sync: [(budget, used_of(sync, budget, now)) for budget in found])

    async def limit(self, budget: Budget) -> Used:
        """Commit a budget, in place of the one there was; what is used of it already."""
        values = {"limit_usd_micros": budget.limit_usd_micros, "by": budget.by, "updated_at": self._clock()}
        row = {"scope": budget.scope.value, "key": budget.key, "period": budget.period.value, **values}
        insert = insert_into(self._engine.dialect.name, budgets).values(**row)
        insert = insert.on_conflict_do_update(index_elements=["scope", "key", "period"], set_=values)
        now = self._clock()

        def write(connection: sa.Connection) -> Used:
            connection.execute(insert)
            return used_of(connection, budget, now)

        return await self._transactions.run(write)

    async def unlimit(self, scope: Scope, key: str, period: Period) -> bool:
        """Commit that there is no such budget; whether there was."""
        mine = (budgets.c.scope == scope.value, budgets.c.key == key, budgets.c.period == period.value)
        delete = sa.delete(budgets).where(*mine).returning(budgets.c.scope)
        return await self._transactions.run(lambda connection: connection.execute(delete).first() is not None)

    @staticmethod
    async def _reserved(connection: AsyncConnection, question: Question) -> int:
        named = {
            runs.c.subject_id: question.workflow_id,
            runs.c.user_id: question.user_id,
            runs.c.provider: question.provider,
        }
        query = sa.select(sa.func.coalesce(sa.func.sum(runs.c.reserved_usd_micros), 0)).where(
            runs.c.reserved_usd_micros > sa.literal_column("0"),
            *[column == value for column, value in named.items() if value is not None],
        )
        return int((await connection.execute(query)).scalar_one())


def _asked(question: Question) -> list[sa.ColumnElement[bool]]:
    bill = run_costs.c
    named = {bill.workflow_id: question.workflow_id, bill.user_id: question.user_id, bill.provider: question.provider}
    found: list[sa.ColumnElement[bool]] = [column == value for column, value in named.items() if value is not None]
    if question.since is not None:
        found.append(bill.billed_at >= question.since)
    if question.until is not None:
        found.append(bill.billed_at < question.until)
    return found


def _sums(*groups: Any) -> sa.Select[Any]:
    doubt = run_costs.c.source == AMBIGUOUS
    usd = run_costs.c.usd_micros
    return sa.select(
        *groups,
        sa.func.coalesce(sa.func.sum(usd), 0).label("usd_micros"),
        sa.func.count().label("bills"),
        sa.func.coalesce(sa.func.sum(sa.case((doubt, usd), else_=0)), 0).label("ambiguous_usd_micros"),
        sa.func.coalesce(sa.func.sum(sa.case((doubt, 1), else_=0)), 0).label("ambiguous_bills"),
    ).select_from(run_costs)


def _total(row: Any) -> Total:
    return Total(int(row.usd_micros), row.bills, int(row.ambiguous_usd_micros), int(row.ambiguous_bills))


def _day(connection: AsyncConnection) -> sa.ColumnElement[Any]:
    """The day of a bill in UTC, as every database says it."""
    if connection.dialect.name == "sqlite":
        return sa.func.date(run_costs.c.billed_at, type_=sa.String)
    return sa.func.to_char(sa.func.timezone("UTC", run_costs.c.billed_at), "YYYY-MM-DD", type_=sa.String)
