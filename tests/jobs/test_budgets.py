import asyncio
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs import policy as rules
from jobs.budgets import Budget, Period, Scope, period_start
from jobs.errors import BatchRefused, BudgetExceeded, RunFinished
from jobs.ledger import AMBIGUOUS
from jobs.runs import Runs
from jobs.spending import Question, Spending
from jobs.state import Answered, Completed, Failed, FellBack, Interrupted, RetryScheduled, Stage
from jobs.tables import run_costs, runs
from providers.base import Cost
from providers.errors import ErrorClass, ProviderError
from tests.jobs.builders import Clock, Hints, pending, request, rows, running, stored_image

ADA = {"id": "ada"}
TEN = 10_000
LOST = rules.run_error(
    ProviderError("The connection broke.", ErrorClass.TEMPORARY, billing_ambiguous=True), Stage.GENERATING
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(engine: AsyncEngine, clock: Clock) -> Runs:
    return Runs(engine, hint=Hints(), clock=clock)


@pytest.fixture
def spending(engine: AsyncEngine, clock: Clock) -> Spending:
    return Spending(engine, clock)


async def limit(
    spending: Spending,
    limit_usd_micros: int,
    scope: Scope = Scope.WORKFLOW,
    key: str = "wf-1",
    period: Period = Period.DAY,
) -> None:
    await spending.limit(Budget(scope, key, period, limit_usd_micros))


async def used(spending: Spending) -> tuple[int, int]:
    ((_, found),) = await spending.budgets()
    return found.spent_usd_micros, found.reserved_usd_micros


async def bills(engine: AsyncEngine) -> list[tuple[str, int, int]]:
    return [(row.source, row.usd_micros, row.attempt) for row in await rows(engine, run_costs)]


def ask(node: int, **options: Any) -> Any:
    return request(node_id=f"n{node}", requested_by=ADA, **{"estimate_usd_micros": TEN, **options})


@pytest.mark.parametrize(
    ("scope", "key"),
    [(Scope.ALL, ""), (Scope.WORKFLOW, "wf-1"), (Scope.USER, "ada"), (Scope.PROVIDER, "fake")],
)
async def test_of_many_at_once_only_as_many_are_accepted_as_there_is_room_for(
    engine: AsyncEngine, spending: Spending, scope: Scope, key: str
) -> None:
    await limit(spending, 3 * TEN + TEN // 2, scope, key)
    stores = [Runs(engine, hint=Hints()) for _ in range(3)]
    for number in range(9):
        # Rows that are there already, so that nothing but the budget stands between the requests.
        await pending(stores[0], node_id=f"n{number}")
        await stores[0].cancel((await stores[0].current("wf-1"))[f"n{number}"].id, {})

    async def accepted(number: int) -> bool:
        try:
            await stores[number % 3].request_run(ask(number))
        except BudgetExceeded:
            return False
        return True

    assert sum(await asyncio.gather(*map(accepted, range(9)))) == 3
    assert await used(spending) == (0, 3 * TEN)
    with pytest.raises(BudgetExceeded) as refused:
        await stores[0].request_run(ask(9))
    told = refused.value
    assert (told.scope, told.key, told.reserved_usd_micros, told.asked_usd_micros) == (scope, key, 3 * TEN, TEN)


async def test_another_canvas_person_and_maker_have_their_own(store: Runs, spending: Spending) -> None:
    for scope, key in ((Scope.WORKFLOW, "wf-2"), (Scope.USER, "bob"), (Scope.PROVIDER, "other")):
        await limit(spending, 0, scope, key)
    assert (await store.request_run(ask(1))).created


async def test_a_batch_without_room_for_all_is_refused_whole(
    engine: AsyncEngine, store: Runs, spending: Spending
) -> None:
    await limit(spending, 2 * TEN)
    with pytest.raises(BatchRefused) as refused:
        await store.request_many([ask(number) for number in range(3)])
    assert (refused.value.index, type(refused.value.cause)) == (2, BudgetExceeded)
    assert await rows(engine, runs) == []
    assert len(await store.request_many([ask(number) for number in range(2)])) == 2


async def test_what_is_free_always_fits_and_what_nobody_knows_needs_a_budget_not_used_up(
    store: Runs, spending: Spending
) -> None:
    await limit(spending, TEN)
    await store.request_run(ask(1))
    assert (await store.request_run(ask(2, estimate_usd_micros=0))).created
    with pytest.raises(BudgetExceeded, match="price of this is not known"):
        await store.request_run(ask(3, estimate_usd_micros=None))
    await limit(spending, TEN + 1)
    assert (await store.request_run(ask(3, estimate_usd_micros=None))).created


async def test_a_reservation_becomes_the_bill_or_is_given_back(
    engine: AsyncEngine, store: Runs, spending: Spending
) -> None:
    await limit(spending, 100 * TEN)
    paid = await running(store, node_id="a", estimate_usd_micros=TEN)
    await store.record(paid.id, 1, Answered(Cost(12_345, "usage")))
    assert await used(spending) == (12_345, 0)
    await store.record(paid.id, 1, Completed((stored_image(paid),)))
    failed = await running(store, node_id="b", estimate_usd_micros=TEN)
    waiting = await pending(store, node_id="c", estimate_usd_micros=TEN)
    assert await used(spending) == (12_345, 2 * TEN)
    await store.record(failed.id, 1, Failed(rules.refused("No.", Stage.SUBMITTING)))
    await store.cancel(waiting.id, {})
    assert await used(spending) == (12_345, 0)
    assert await bills(engine) == [("usage", 12_345, 1)]


async def test_days_and_months_end_and_ever_does_not(store: Runs, spending: Spending, clock: Clock) -> None:
    for period in Period:
        await limit(spending, TEN, period=period)
    run = await running(store, node_id="a", estimate_usd_micros=TEN)
    await store.record(run.id, 1, Completed((stored_image(run),), Cost(TEN, "price")))
    for ahead_s, left in ((0, {"day", "month", "total"}), (86_400, {"month", "total"}), (31 * 86_400, {"total"})):
        clock.advance(ahead_s)
        full = {budget.period.value for budget, of_it in await spending.budgets() if of_it.spent_usd_micros}
        assert full == left
    await spending.unlimit(Scope.WORKFLOW, "wf-1", Period.TOTAL)
    assert (await store.request_run(ask(1))).created
    assert not await spending.unlimit(Scope.WORKFLOW, "wf-1", Period.TOTAL)


@given(st.datetimes(timezones=st.just(dt.UTC)), st.integers(-12, 12))
def test_periods_are_those_of_utc(now: dt.datetime, hours: int) -> None:
    zone = dt.timezone(dt.timedelta(hours=hours))
    if not dt.datetime(2, 1, 1, tzinfo=dt.UTC) < now < dt.datetime(9998, 1, 1, tzinfo=dt.UTC):
        return
    day, month = period_start(Period.DAY, now.astimezone(zone)), period_start(Period.MONTH, now.astimezone(zone))
    assert day is not None
    assert month is not None
    assert dt.timedelta() <= now - day < dt.timedelta(days=1)
    assert (month.year, month.month, month.day, month.tzinfo) == (now.year, now.month, 1, dt.UTC)
    assert period_start(Period.TOTAL, now) is None


@pytest.mark.parametrize(
    ("event", "attempt"), [(Interrupted(billing_ambiguous=True), 1), (RetryScheduled(LOST, dt.datetime.now(dt.UTC)), 1),
                           (Failed(LOST), 1), (FellBack("other", "m", LOST, 7), 1)], ids=lambda value: str(value)[:9],
)  # fmt: skip
async def test_a_call_whose_answer_is_lost_counts_as_it_may_have_been_billed(
    engine: AsyncEngine, store: Runs, spending: Spending, event: Any, attempt: int
) -> None:
    await limit(spending, 100 * TEN)
    run = await running(store, node_id="a", estimate_usd_micros=TEN)
    await store.record(run.id, 1, event)
    assert await bills(engine) == [(AMBIGUOUS, TEN, attempt)]
    assert (await rows(engine, run_costs))[0].provider == "fake"
    report = await spending.report(Question(workflow_id="wf-1"))
    assert (report.total.usd_micros, report.total.ambiguous_usd_micros, report.total.ambiguous_bills) == (TEN, TEN, 1)


async def test_a_cancel_during_the_call_counts_and_one_before_or_after_it_does_not(
    engine: AsyncEngine, store: Runs
) -> None:
    calling, waiting, billed = (
        await running(store, node_id="a", estimate_usd_micros=TEN),
        await pending(store, node_id="b", estimate_usd_micros=TEN),
        await running(store, node_id="c", estimate_usd_micros=TEN),
    )
    await store.record(billed.id, 1, Answered(Cost(7, "usage")))
    await store.cancel(billed.id, {})
    await store.cancel_many([calling.id, waiting.id], {})
    assert sorted(await bills(engine)) == [(AMBIGUOUS, TEN, 1), ("usage", 7, 1)]


async def test_a_crash_between_the_answer_and_the_commit_shows_in_the_cost_of_the_one_more_attempt(
    engine: AsyncEngine, store: Runs
) -> None:
    run = await running(store, node_id="a", estimate_usd_micros=TEN)
    again = await store.begin_attempt(run.id, "w2")
    assert again is not None
    await store.record(run.id, 2, Completed((stored_image(run),), Cost(9_000, "usage")))
    assert await bills(engine) == [(AMBIGUOUS, TEN, 1), ("usage", 9_000, 2)]
    assert (await store.get(run.id)).cost_usd_micros == 9_000
    with pytest.raises(RunFinished):
        await store.record(run.id, 1, Completed((stored_image(run),), Cost(9_000, "usage")))
    assert len(await bills(engine)) == 2


async def test_a_free_call_that_is_lost_costs_nothing(engine: AsyncEngine, store: Runs) -> None:
    run = await running(store, node_id="a", estimate_usd_micros=0)
    await store.cancel(run.id, {})
    assert await bills(engine) == []


async def test_the_reservation_moves_with_the_run_to_another_maker(store: Runs, spending: Spending) -> None:
    await limit(spending, 3 * TEN, Scope.PROVIDER, "other")
    run = await running(store, node_id="a", estimate_usd_micros=TEN)
    no_key = rules.run_error(ProviderError("No.", ErrorClass.AUTH_ERROR), Stage.SUBMITTING)
    with pytest.raises(BudgetExceeded):
        await store.record(run.id, 1, FellBack("other", "m", no_key, 4 * TEN))
    moved = await store.record(run.id, 1, FellBack("other", "m", no_key, 3 * TEN, ("Smaller.",)))
    assert (moved.provider, moved.reserved_usd_micros, moved.worker) == ("other", 3 * TEN, None)
    assert await used(spending) == (0, 3 * TEN)
    begun = await store.begin_attempt(run.id, "w1")
    assert begun is not None
    done = await store.record(run.id, 2, Completed((stored_image(run),), Cost(1, "price"), ("Greener.",)))
    assert done.payload["adapted"] == ["Smaller.", "Greener."]
    assert await used(spending) == (1, 0)


async def test_a_run_that_moves_does_not_stand_in_its_own_way(store: Runs, spending: Spending) -> None:
    await limit(spending, 2 * TEN + 1)
    run = await running(store, node_id="a", estimate_usd_micros=TEN)
    no_key = rules.run_error(ProviderError("No.", ErrorClass.AUTH_ERROR), Stage.SUBMITTING)
    await store.record(run.id, 1, FellBack("other", "m", no_key, 2 * TEN))
    assert await used(spending) == (0, 2 * TEN)


async def test_spending_is_told_by_maker_and_day(store: Runs, spending: Spending, clock: Clock) -> None:
    for number, maker in enumerate(["fake", "fake", "other"]):
        run = await running(store, node_id=f"n{number}", provider=maker, requested_by=ADA)
        await store.record(run.id, 1, Completed((stored_image(run),), Cost(10 + number, "price")))
        clock.advance(43_200)
    report = await spending.report(Question())
    assert {maker: total.usd_micros for maker, total in report.makers.items()} == {
        ("fake", "fake-1"): 21, ("other", "fake-1"): 12,
    }  # fmt: skip
    assert [(day.day, total.usd_micros) for day, total in report.days.items()] == [(22, 23), (21, 10)]
    since = clock.now - dt.timedelta(hours=12)
    for question, cost in (
        (Question(user_id="ada"), 33),
        (Question(user_id="bob"), 0),
        (Question(provider="other"), 12),
        (Question(since=since), 12),
        (Question(until=since), 21),
        (Question(workflow_id="wf-2"), 0),
    ):
        assert (await spending.report(question)).total.usd_micros == cost
