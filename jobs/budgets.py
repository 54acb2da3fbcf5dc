"""Budgets: how much may be spent on a canvas, by a person, at a maker, or by everybody, in a day, a month, or ever.

What a run is expected to cost is reserved when it is accepted, in the same transaction and under a lock on the budgets
it counts against; at its end the bill takes the place of the reservation.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from jobs.errors import BudgetExceeded
from jobs.run import Run
from jobs.tables import budgets, run_costs, runs

_CHUNK: Final = 500
"""Keys per statement: SQLite has a limit on bound parameters."""


class Scope(StrEnum):
    """Whose spending a budget limits."""

    ALL = "all"
    WORKFLOW = "workflow"
    USER = "user"
    PROVIDER = "provider"


class Period(StrEnum):
    """How long a budget lasts; days and months are those of UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit; `key` is a workflow's, a person's or a maker's id, and "" for everybody."""

    scope: Scope
    key: str
    period: Period
    limit_usd_micros: int
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """What a budget's period has cost so far, and what unfinished runs hold back of it."""

    spent_usd_micros: int
    reserved_usd_micros: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a run is expected to cost; None where nobody knows."""

    run_id: str
    workflow_id: str
    user_id: str | None
    provider: str
    usd_micros: int | None

    @classmethod
    def of(cls, run: Run) -> "Reservation":
        """What a run that is about to be accepted, or goes to another maker, is expected to cost."""
        return cls(run.id, run.workflow_id, run.user_id, run.provider, run.estimate_usd_micros)

    @property
    def places(self) -> tuple[tuple[Scope, str], ...]:
        """Whose budgets it counts against."""
        own = ((Scope.USER, self.user_id),) if self.user_id else ()
        return ((Scope.ALL, ""), (Scope.PROVIDER, self.provider), *own, (Scope.WORKFLOW, self.workflow_id))


def period_start(period: Period, now: dt.datetime) -> dt.datetime | None:
    """When the period that `now` is in began; None for all time. Pure."""
    day = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.TOTAL:
        return None
    return day if period is Period.DAY else day.replace(day=1)


def hold(connection: sa.Connection, wanted: Sequence[Reservation], now: dt.datetime) -> None:
    """Check that every budget has room for all of these, and lock those budgets until the transaction ends.

    What is free needs no room. What nobody knows the price of needs a budget that is not used up.

    Args:
        connection: The transaction that writes what is reserved.
        wanted: Of runs that are not in SQL yet, or are there with another reservation.
        now: The time, aware UTC.

    Raises:
        BudgetExceeded: Names the first run, by its index, for which there is no room, and the budget.

    """
    paid = [(index, one) for index, one in enumerate(wanted) if one.usd_micros != 0]
    if not paid:
        return
    held = [one.run_id for one in wanted] if len(wanted) == 1 else []
    for budget in _locked(connection, {place for _, one in paid for place in one.places}):
        used = used_of(connection, budget, now, without=held)
        total = used.spent_usd_micros + used.reserved_usd_micros
        mine = [(index, one) for index, one in paid if (budget.scope, budget.key) in one.places]
        for index, one in mine:
            asked = one.usd_micros
            if total >= budget.limit_usd_micros if asked is None else total + asked > budget.limit_usd_micros:
                reserved = total - used.spent_usd_micros
                raise BudgetExceeded(
                    index, budget.scope, budget.key, budget.period, budget.limit_usd_micros,
                    used.spent_usd_micros, reserved, asked,
                )  # fmt: skip
            total += asked or 0


def used_of(connection: sa.Connection, budget: Budget, now: dt.datetime, *, without: Collection[str] = ()) -> Used:
    """What is used of a budget; one statement, so that a run that ends meanwhile is counted once.

    Args:
        connection: Reads.
        budget: Any.
        now: The time, aware UTC.
        without: Runs whose reservation does not count.

    """
    since = period_start(budget.period, now)
    bills = sa.select(sa.func.coalesce(sa.func.sum(run_costs.c.usd_micros), 0)).where(
        *([run_costs.c.billed_at >= since] if since else []), *_of(run_costs, budget)
    )
    # The literal lets SQLite use the index that holds only such rows.
    open_ = sa.select(sa.func.coalesce(sa.func.sum(runs.c.reserved_usd_micros), 0)).where(
        runs.c.reserved_usd_micros > sa.literal_column("0"), *_of(runs, budget)
    )
    if without:
        open_ = open_.where(runs.c.id.not_in(list(without)))
    spent, reserved = (connection.execute(sa.select(bills.scalar_subquery(), open_.scalar_subquery()))).one()
    return Used(int(spent), int(reserved))


def budget_from_row(row: Any) -> Budget:
    """A row of `budgets` as a budget."""
    return Budget(Scope(row.scope), row.key, Period(row.period), row.limit_usd_micros, row.by)


def _of(table: sa.Table, budget: Budget) -> list[sa.ColumnElement[bool]]:
    if budget.scope is Scope.ALL:
        return []
    name = {Scope.WORKFLOW: "subject_id" if table is runs else "workflow_id", Scope.USER: "user_id"}
    return [table.c[name.get(budget.scope, "provider")] == budget.key]


def _locked(connection: sa.Connection, places: Iterable[tuple[Scope, str]]) -> list[Budget]:
    """The budgets of these places, locked in the order of their keys."""
    keys: dict[Scope, list[str]] = {}
    for scope, key in sorted(places):
        keys.setdefault(scope, []).append(key)
    found: list[Budget] = []
    for scope in sorted(keys):
        for at in range(0, len(keys[scope]), _CHUNK):
            chunk = keys[scope][at : at + _CHUNK]
            query = sa.select(budgets).where(budgets.c.scope == scope.value, budgets.c.key.in_(chunk))
            query = query.order_by(budgets.c.key, budgets.c.period).with_for_update(key_share=True)
            found += [budget_from_row(row) for row in connection.execute(query)]
    return found
