"""Places at makers, in SQL: who waits, who has one, and the one transaction that gives them away."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from crdt.tables import UtcDateTime
from jobs.limits import Call, Limits
from jobs.pauses import Held, Kind, Pause, Scope
from jobs.run import Run
from jobs.state import Stage, Status
from jobs.tables import admissions, pauses, runs, workers
from jobs.turns import Desk, Grant, Waiting

UNFINISHED: Final = (Status.PENDING.value, Status.RUNNING.value)
RECENT_S: Final = 60.0
"""How far back fairness looks."""
MOST: Final = 300
"""Runs that one look considers: the first of every line, then the second, and so on."""
LOCK_LIMIT_S: Final = 5
HORIZON_S: Final = 0.25
"""A moment is given away so long before it comes: time for the run to reach its worker."""
_LOCK: Final = 0x706C6163  # "plac": one number for every process of this database, and no other lock has it.

WAITS: Final = sa.and_(
    runs.c.status.in_(UNFINISHED),
    runs.c.admitted_at.is_(None),
    # Its maker works on it: it was let through by a version that knew no places.
    runs.c.remote_id.is_(None),
    runs.c.worker.is_(None),
)
"""Runs that wait for a place, now or after a failure."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at one look: the desk, and what holds runs up."""

    desk: Desk
    held: Held
    living: tuple[str, ...]
    now: dt.datetime

    @property
    def limits_hold(self) -> bool:
        """Whether a limit or a pause may keep runs waiting that `waiting` does not even show."""
        return bool(self.held.pauses or _possible(self))


def lock(connection: sa.Connection) -> dt.datetime:
    """Wait for our turn to give places away, and return the time that all processes share.

    On SQLite the transaction itself is the turn.
    """
    if connection.dialect.name == "sqlite":
        return dt.datetime.now(dt.UTC)
    # One trip; from left to right, so the clock is read once the turn has come.
    bounded = sa.func.set_config("lock_timeout", f"{LOCK_LIMIT_S}s", True)  # noqa: FBT003 - its name is "is_local"
    now = sa.func.clock_timestamp(type_=UtcDateTime)
    row = (connection.execute(sa.select(bounded, sa.func.pg_advisory_xact_lock(_LOCK), now.label("now")))).one()
    shared: dt.datetime = row.now
    return shared


def look(connection: sa.Connection, limits: Limits, now: dt.datetime, lease_s: float) -> Look:
    """What there is to give away, and what was given, in one statement."""
    desk = Desk(now.timestamp(), limits, capacity=0)
    living: list[str] = []
    held: list[Pause] = []
    rated = tuple(limits.rated.items())
    since = {f"since_{index}": now - dt.timedelta(seconds=span_s) for index, (_, span_s) in enumerate(rated)}
    times = {"dead": now - dt.timedelta(seconds=lease_s), "recent": now - dt.timedelta(seconds=RECENT_S)}
    for row in connection.execute(_state(tuple(provider for provider, _ in rated)), since | times):
        if row.what == "worker":
            desk.capacity += row.number
            living.append(row.a)
        elif row.what == "pause":
            pause = Pause(Scope(row.a), row.b, Kind(row.c), row.at, "", None, now)
            if pause.until is None or pause.until > now:
                held.append(pause)
        elif row.what == "flight":
            _count_flight(desk, row)
        elif row.what == "recent":
            desk.recent[row.a, party(row.d, row.c)] += row.number
            desk.recent[row.a, row.c] += row.number
        else:
            call = Call(row.at.timestamp(), row.number)
            for scope in (row.a, f"{row.a}:{row.b}"):
                desk.calls.setdefault(scope, []).append(call)
    for calls in desk.calls.values():
        calls.sort(key=lambda call: call.at)
    return Look(desk, Held(tuple(held)), tuple(sorted(living)), now)


def waiting(
    connection: sa.Connection, look: Look, soon: dt.datetime, *, each: int, paused: bool = False
) -> list[Waiting]:
    """Runs that wait, the first `each` of every line, the best claims first.

    Args:
        connection: To read by.
        look: What holds runs up, or is full, is left out.
        soon: Runs that are to be tried again later than this are left out.
        each: Of one line.
        paused: Also what cannot go now.

    """
    possible = () if paused else _possible(look)
    counted = _counted(look.desk.limits)
    query = _lines(counted, *possible) if possible else _all_lines(counted)
    return [_waiting(row) for row in connection.execute(query, {"soon": soon, "each": each})]


def held(look: Look, one: Waiting) -> str | None:
    """What keeps a run waiting besides those before it: "paused", "rate_limit" or "limit"."""
    pause = look.held.of(one.provider, one.canvas)
    if pause is not None:
        return pause.held
    desk = look.desk
    full = desk.full(one.provider) or desk.full(f"{one.provider}:{one.model}")
    return "limit" if full or desk.earliest(one) > desk.now + HORIZON_S else None


def admit(connection: sa.Connection, grants: Sequence[Grant], look: Look, *, contended: bool) -> list[Grant]:
    """Commit places for these runs; returns those that still wanted one.

    Args:
        connection: The transaction that `lock` was called in.
        grants: What was decided.
        look: What it was decided by.
        contended: Whether somebody has to stand back: then calls are remembered for fairness even where no limit
            counts them.

    """
    taken: list[Grant] = []
    for start in sorted({grant.start for grant in grants}):
        ids = {grant.waiting.run_id: grant for grant in grants if grant.start == start}
        # Whoever holds one of these rows is about to end it, or to change it: it comes next time.
        free = sa.select(runs.c.id).where(runs.c.id.in_(ids), WAITS).with_for_update(key_share=True, skip_locked=True)
        begun = {"admitted_at": look.now, "start_at": moment(start), "updated_at": look.now}
        update = sa.update(runs).where(runs.c.id.in_(free)).values(**begun).returning(runs.c.id)
        taken += [ids[row.id] for row in connection.execute(update)]
    limits = look.desk.limits
    rows = [
        row for grant in taken if contended or grant.waiting.provider in limits.rated for row in _rows(grant, limits)
    ]
    if rows:
        connection.execute(sa.insert(admissions), rows)
    return taken


def reserve_again(connection: sa.Connection, run: Run, look: Look, horizon_s: float) -> float | None:
    """Give a run that has a place another moment for its call, or take its place away when none is near.

    Its last moment is free again, unless a worker that has died may have used it.

    Returns:
        Unix seconds; None: it waits for a place again.

    """
    unused = sa.and_(admissions.c.run_id == run.id, admissions.c.start_at == run.start_at)
    if run.start_at is not None and run.crashes <= 1:
        connection.execute(sa.delete(admissions).where(unused))
        for scope in (run.provider, f"{run.provider}:{run.model}"):
            calls = look.desk.calls.get(scope, [])
            at = run.start_at.timestamp()
            left = next((call for call in calls if call.at == at), None)
            if left is not None:
                calls.remove(left)
    one = waiting_of(run)
    start = look.desk.earliest(one)
    mine = sa.and_(runs.c.id == run.id, runs.c.attempt == run.attempt, runs.c.worker == run.worker)
    if look.held.of(run.provider, run.workflow_id) is not None or start > look.now.timestamp() + horizon_s:
        back = {"admitted_at": None, "start_at": None, "worker": None, "stage": Stage.QUEUED.value, "crashes": 0}
        connection.execute(sa.update(runs).where(mine).values(**back, updated_at=look.now))
        return None
    connection.execute(sa.update(runs).where(mine).values(start_at=moment(start)))
    connection.execute(sa.insert(admissions), _rows(Grant(one, start), look.desk.limits))
    return start


def anything_waits(connection: sa.Connection) -> bool:
    """Whether any run waits for a place."""
    return bool(connection.execute(sa.select(sa.exists().where(WAITS))).scalar_one())


def overdue(connection: sa.Connection, now: dt.datetime) -> list[str]:
    """Ids of runs whose deadline has passed."""
    late = sa.and_(runs.c.status.in_(UNFINISHED), runs.c.deadline_at <= now)
    return list((connection.execute(sa.select(runs.c.id).where(late).limit(MOST))).scalars())


def forget(connection: sa.Connection, limits: Limits, now: dt.datetime) -> None:
    """Delete calls that no limit and no fairness looks back at, and pauses that are long over."""
    old = now - dt.timedelta(seconds=max(limits.span_s, RECENT_S))
    connection.execute(sa.delete(admissions).where(admissions.c.start_at < old))
    connection.execute(sa.delete(pauses).where(pauses.c.until < now - dt.timedelta(hours=1)))


def party(user_id: str | None, workflow_id: str) -> str:
    """Who takes turns: a person, or where nobody knows who asked, the people of a canvas."""
    return f"canvas {workflow_id}" if user_id is None else f"user {user_id}"


def waiting_of(run: Run) -> Waiting:
    """A run as one that waits."""
    who = party(run.user_id, run.workflow_id)
    at = run.created_at.timestamp()
    place = (run.priority, run.rank, at)
    return Waiting(run.id, run.provider, run.model, who, run.workflow_id, *place, images=run.spec.n)


def moment(seconds: float) -> dt.datetime:
    """Unix seconds as a time."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


# Statements that every look makes are built once: building one takes longer than SQLite takes to answer it.


@lru_cache(maxsize=16)
def _state(rated: tuple[str, ...]) -> sa.CompoundSelect[Any]:
    """Rows (what, a, b, c, d, number, other, at) of everything a look needs; `since_0`... are times of these makers."""
    text, time = sa.cast(sa.null(), sa.String), sa.cast(sa.null(), UtcDateTime)
    zero = sa.literal(0, sa.BigInteger)
    placed = sa.and_(runs.c.status.in_(UNFINISHED), runs.c.admitted_at.is_not(None))
    at_work = sa.or_(runs.c.remote_id.is_(None), runs.c.worker.is_not(None))
    owner = (runs.c.processor, runs.c.provider, runs.c.subject_id, runs.c.user_id)
    flights = _part("flight", *owner, sa.func.count(), sa.func.sum(sa.case((at_work, 1), else_=0)), time)
    parts = [
        _part("worker", workers.c.id, text, text, text, workers.c.concurrency, zero, time).where(
            workers.c.seen_at > _time("dead")
        ),
        _part("pause", pauses.c.scope, pauses.c.key, pauses.c.kind, text, zero, zero, pauses.c.until),
        flights.where(placed).group_by(*owner),
        _recent(time),
    ]
    if rated:
        parts.append(_calls(rated))
    return sa.union_all(*parts)


def _recent(time: Any) -> sa.Select[Any]:
    log = admissions.c
    owner = (log.provider, log.model, log.workflow_id, log.user_id)
    calls = sa.func.count(log.run_id.distinct())
    columns = (*owner, calls, sa.literal(0, sa.BigInteger), time)
    return _part("recent", *columns).where(log.start_at > _time("recent")).group_by(*owner)


def _calls(rated: Sequence[str]) -> sa.Select[Any]:
    log = admissions.c
    call = (log.provider, log.model, log.run_id, log.start_at)
    since = sa.or_(
        *(
            sa.and_(log.provider == provider, log.start_at > _time(f"since_{index}"))
            for index, provider in enumerate(rated)
        )
    )
    text = sa.cast(sa.null(), sa.String)
    columns = (log.provider, log.model, log.run_id, text, sa.func.count(), sa.literal(0, sa.BigInteger), log.start_at)
    return _part("call", *columns).where(since).group_by(*call)


@lru_cache(maxsize=16)
def _all_lines(counted: tuple[str, ...]) -> sa.Select[Any]:
    return _lines(counted)


def _lines(counted: tuple[str, ...], *possible: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The first `each` runs of every line that are due by `soon`; see `waiting`."""
    line = (runs.c.processor, runs.c.user_id, runs.c.subject_id)
    place = (runs.c.priority.desc(), runs.c.rank, runs.c.created_at, runs.c.id)
    number = sa.func.row_number().over(partition_by=line, order_by=place).label("number")
    due = sa.or_(runs.c.resume_at.is_(None), runs.c.resume_at <= _time("soon"))
    columns = (runs.c.id, *line, runs.c.priority, runs.c.rank, runs.c.created_at, runs.c.node_id, runs.c.provider)
    found = sa.select(*columns, number, _images(counted)).where(WAITS, due, *possible).subquery()
    return (
        sa.select(found)
        .where(found.c.number <= sa.bindparam("each", type_=sa.Integer))
        .order_by(found.c.priority.desc(), found.c.number, found.c.created_at, found.c.id)
        .limit(MOST)
    )


def _time(name: str) -> sa.BindParameter[dt.datetime]:
    return sa.bindparam(name, type_=UtcDateTime)


def _part(what: str, *values: Any) -> sa.Select[Any]:
    names = ("a", "b", "c", "d", "number", "other", "at")
    labelled = (value.label(name) for value, name in zip(values, names, strict=True))
    return sa.select(sa.literal(what, sa.String).label("what"), *labelled)


def _count_flight(desk: Desk, row: Any) -> None:
    who = party(row.d, row.c)
    for scope in (row.b, row.a):
        desk.flights[scope] += row.number
    desk.taken[who] += row.other
    desk.loads[row.b, who] += row.number
    desk.loads[row.b, row.c] += row.number


def _possible(look: Look) -> list[sa.ColumnElement[bool]]:
    """What must be true of a run that can go now, as far as one statement can say."""
    desk, held = look.desk, look.held
    no_providers = set(held.names(Scope.PROVIDER))
    no_providers |= {scope for scope in desk.limits.scopes if ":" not in scope and desk.full(scope)}
    no_models = [scope for scope in desk.limits.scopes if ":" in scope and desk.full(scope)]
    no_workflows = held.names(Scope.WORKFLOW)
    greedy = [
        name.removeprefix("user ") for name, taken in desk.taken.items() if taken >= desk.share and name[0] == "u"
    ]
    found: list[sa.ColumnElement[bool]] = []
    if no_providers:
        found.append(runs.c.provider.not_in(no_providers))
    if no_models:
        found.append(runs.c.processor.not_in(no_models))
    if no_workflows:
        found.append(runs.c.subject_id.not_in(no_workflows))
    if greedy:
        found.append(sa.or_(runs.c.user_id.is_(None), runs.c.user_id.not_in(greedy)))
    return found


def _counted(limits: Limits) -> tuple[str, ...]:
    """Makers whose limits count pictures."""
    scopes = limits.scopes.items()
    return tuple(sorted({name.partition(":")[0] for name, limit in scopes if any(rate.images for rate in limit.rates)}))


def _images(counted: Sequence[str]) -> sa.ColumnElement[int]:
    """How many pictures a run asks for, where a limit counts them: reading JSON takes time."""
    n = runs.c.request["spec"]["n"].as_integer()
    return sa.case((runs.c.provider.in_(counted), sa.func.coalesce(n, 1)), else_=1).label("images")


def _waiting(row: Any) -> Waiting:
    provider, _, model = row.processor.partition(":")
    who = party(row.user_id, row.subject_id)
    at = row.created_at.timestamp()
    return Waiting(row.id, provider, model, who, row.subject_id, row.priority, row.rank, at, row.images)


def _rows(grant: Grant, limits: Limits) -> list[dict[str, Any]]:
    """A row for each picture where they are counted, one for the call elsewhere."""
    one = grant.waiting
    row = {
        "run_id": one.run_id,
        "provider": one.provider,
        "model": one.model,
        "workflow_id": one.canvas,
        "user_id": one.party.removeprefix("user ") if one.party.startswith("user ") else None,
        "start_at": moment(grant.start),
    }
    return [row] * (one.images if limits.counts_images(one.provider, one.model) else 1)
