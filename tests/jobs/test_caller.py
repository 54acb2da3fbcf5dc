import asyncio
import datetime as dt
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs import signing
from jobs.caller import PLAN_S, Caller, CallPace, Outcome, wait_s
from jobs.calls import Calls, Room
from jobs.reading import utcnow
from jobs.run import Run
from jobs.runs import Runs
from jobs.state import Completed, Failed
from jobs.tables import outgoing_calls
from providers.addresses import Address
from tests.emulators.receiver import Receiver
from tests.jobs.builders import Hints, run_error, running, stored_image

ROOT = Path(__file__).parents[2]
SECRET = signing.make_secret()
LOOPBACK = ("127.0.0.0/8",)
QUICK = CallPace(limit_s=5, claim_s=30, tick_s=0.05, gather_s=0, trouble_s=0.05)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(secrets=(SECRET,)).serving() as made:
        yield made
        made.gate.set()


class Told:
    """Hears what came of tries, and wakes whoever waits for it."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._changed = asyncio.Event()

    def __call__(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._changed.set()

    async def so_many(self, count: int) -> list[Outcome]:
        async with asyncio.timeout(20):
            while len(self.outcomes) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.outcomes


@asynccontextmanager
async def calling(engine: AsyncEngine, told: Callable[[Outcome], None], **options: Any) -> AsyncIterator[Calls]:
    secret = options.pop("secret", SECRET)

    async def keys() -> Sequence[bytes]:
        return signing.read_keys(secret)

    calls = Calls(engine)
    options = {"allow": LOOPBACK, "pace": QUICK, "jitter": lambda: 0.5, **options}
    async with Caller(calls, keys, told=told, **options):
        yield calls


async def ended(engine: AsyncEngine, url: str, *, failed: bool = False, **options: Any) -> Run:
    """A run that has just ended and whose caller wants to know."""
    runs = Runs(engine, hint=Hints())
    run = await running(runs, webhook_url=url, metadata={"ticket": 7}, **options)
    event = Failed(run_error()) if failed else Completed((stored_image(run),))
    return await runs.record(run.id, run.attempt, event)


async def due_again(engine: AsyncEngine) -> None:
    """As if the time until the next try had passed."""
    async with engine.begin() as connection:
        waits = outgoing_calls.c.next_at.is_not(None)
        await connection.execute(sa.update(outgoing_calls).where(waits).values(next_at=utcnow()))


async def test_the_end_of_a_run_is_told_once_and_anybody_can_check_who_says_so(
    engine: AsyncEngine, receiver: Receiver
) -> None:
    told = Told()
    run = await ended(engine, f"{receiver.origin}/hook?key=1")
    async with calling(engine, told) as calls:
        assert await told.so_many(1) == [Outcome.DELIVERED]
        (call,) = await calls.of_run(run.id)
    ((call_id, body),) = receiver.verified
    assert (call.id, call.attempts, call.last_status, call.next_at) == (call_id, 1, 204, None)
    assert call.delivered_at is not None
    assert (body["type"], body["data"]["jobId"], body["data"]["metadata"]) == ("job.completed", run.id, {"ticket": 7})
    assert (receiver.journal[0].path, receiver.journal[0].query) == ("/hook", "key=1")


async def test_a_failed_run_is_told_with_its_reason(engine: AsyncEngine, receiver: Receiver) -> None:
    told = Told()
    await ended(engine, receiver.origin, failed=True)
    async with calling(engine, told):
        await told.so_many(1)
    ((_, body),) = receiver.verified
    assert (body["type"], body["data"]["error"]["message"]) == ("job.failed", "Fake is overloaded.")


async def test_a_try_that_fails_is_repeated_by_the_plan_with_the_same_id_and_a_fresh_time(
    sqlite_engine: AsyncEngine, receiver: Receiver
) -> None:
    told = Told()
    receiver.statuses = [500, 302, 204]
    run = await ended(sqlite_engine, receiver.origin)
    async with calling(sqlite_engine, told) as calls:
        for tries, plan in enumerate(PLAN_S[:2], 1):
            before = utcnow()
            await told.so_many(tries)
            (call,) = await calls.of_run(run.id)
            assert call.next_at is not None
            assert abs((call.next_at - before).total_seconds() - plan) < 3
            await due_again(sqlite_engine)
        assert await told.so_many(3) == [Outcome.FAILED, Outcome.FAILED, Outcome.DELIVERED]
    assert len({call_id for call_id, _ in receiver.verified}) == 1
    assert len(receiver.verified) == 3


@pytest.mark.parametrize(
    ("status", "outcome"), [(410, Outcome.GONE), (200, Outcome.DELIVERED), (204, Outcome.DELIVERED)]
)
async def test_success_and_gone_end_it(
    sqlite_engine: AsyncEngine, receiver: Receiver, status: int, outcome: Outcome
) -> None:
    told = Told()
    receiver.statuses = [status]
    run = await ended(sqlite_engine, receiver.origin)
    async with calling(sqlite_engine, told) as calls:
        assert await told.so_many(1) == [outcome]
        (call,) = await calls.of_run(run.id)
    assert (call.next_at, call.delivered_at is not None) == (None, outcome is Outcome.DELIVERED)


async def test_what_fails_to_the_end_of_the_plan_is_given_up_with_a_line_in_the_log(
    sqlite_engine: AsyncEngine, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    receiver.statuses = [500]
    run = await ended(sqlite_engine, f"{receiver.origin}/secret-path?token=hush")
    async with sqlite_engine.begin() as connection:
        await connection.execute(sa.update(outgoing_calls).values(attempts=len(PLAN_S)))
    async with calling(sqlite_engine, told) as calls:
        assert await told.so_many(1) == [Outcome.GIVEN_UP]
        (call,) = await calls.of_run(run.id)
    assert (call.next_at, call.delivered_at, call.last_status, call.last_error) == (None, None, 500, "answered 500")
    (line,) = [record for record in caplog.records if getattr(record, "action", "") == "call_given_up"]
    assert vars(line)["run_id"] == run.id
    assert "hush" not in caplog.text
    assert "secret-path" not in str([vars(record) for record in caplog.records])


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_asks_for_time_is_given_it_by_every_call_to_its_host(
    sqlite_engine: AsyncEngine, receiver: Receiver, status: int
) -> None:
    told = Told()
    receiver.statuses = [{"status": status, "headers": {"retry-after": "4000"}}, 204]
    run = await ended(sqlite_engine, receiver.origin)
    async with calling(sqlite_engine, told) as calls:
        await told.so_many(1)
        (call,) = await calls.of_run(run.id)
        assert call.next_at is not None
        assert 4000 - 5 <= (call.next_at - utcnow()).total_seconds() <= 4000 * 1.2
        await ended(sqlite_engine, receiver.origin, node_id="another")
        async with Receiver(secrets=(SECRET,)).serving() as other:
            await ended(sqlite_engine, other.origin, node_id="elsewhere")
            await other.heard()
        await told.so_many(2)
    assert len(receiver.journal) == 1


async def test_a_slow_receiver_holds_up_nobody_else(engine: AsyncEngine, receiver: Receiver) -> None:
    told = Told()
    for number in range(7):
        await ended(engine, f"{receiver.origin}/slow", node_id=f"slow-{number}")
    async with Receiver(secrets=(SECRET,)).serving() as quick:
        await ended(engine, quick.origin, node_id="quick")
        async with calling(engine, told, pace=CallPace(tick_s=0.05, gather_s=0, calls=6, per_host=3)):
            await quick.heard()
            await told.so_many(1)
            assert len(receiver.journal) <= 3
            receiver.gate.set()
            assert await told.so_many(8) == [Outcome.DELIVERED] * 8
    assert len({call_id for call_id, _ in receiver.verified}) == 7


async def test_nobody_is_waited_for_longer_than_the_limit(sqlite_engine: AsyncEngine, receiver: Receiver) -> None:
    told = Told()
    run = await ended(sqlite_engine, f"{receiver.origin}/slow")
    async with calling(sqlite_engine, told, pace=CallPace(limit_s=0.1, tick_s=0.05, gather_s=0)) as calls:
        assert await told.so_many(1) == [Outcome.FAILED]
        (call,) = await calls.of_run(run.id)
    assert call.last_error == "no answer within 0.1 s"


async def test_an_answer_without_end_is_not_read_to_its_end(sqlite_engine: AsyncEngine, receiver: Receiver) -> None:
    told = Told()
    await ended(sqlite_engine, f"{receiver.origin}/endless")
    async with calling(sqlite_engine, told):
        assert await told.so_many(1) == [Outcome.DELIVERED]


async def test_private_addresses_are_not_called_whatever_the_name_says(
    sqlite_engine: AsyncEngine, receiver: Receiver
) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[Address]:
        return [ip_address("8.8.8.8"), ip_address("127.0.0.1")]

    told = Told()
    run = await ended(sqlite_engine, f"http://public.example:{receiver.port}/hook")
    async with calling(sqlite_engine, told, allow=(), resolve=resolve) as calls:
        assert await told.so_many(1) == [Outcome.FAILED]
        (call,) = await calls.of_run(run.id)
    assert call.last_error is not None
    assert "not on the public internet" in call.last_error
    assert receiver.journal == []


async def test_while_secrets_change_old_and_new_receivers_can_check(sqlite_engine: AsyncEngine) -> None:
    told, new = Told(), signing.make_secret()
    async with Receiver(secrets=(SECRET,)).serving() as old_one, Receiver(secrets=(new,)).serving() as new_one:
        await ended(sqlite_engine, old_one.origin)
        await ended(sqlite_engine, new_one.origin, node_id="another")
        async with calling(sqlite_engine, told, secret=f"{new}, {SECRET}"):
            await told.so_many(2)
        assert (len(old_one.verified), len(new_one.verified)) == (1, 1)


async def test_two_processes_make_each_call_once(postgres_engine: AsyncEngine, receiver: Receiver) -> None:
    told = Told()
    for number in range(20):
        await ended(postgres_engine, receiver.origin, node_id=f"n{number}")
    async with calling(postgres_engine, told), calling(postgres_engine, told):
        await told.so_many(20)
    assert sorted(call_id for call_id, _ in receiver.verified) == sorted({i for i, _ in receiver.verified})


async def test_a_stop_in_the_middle_lets_another_go_on_at_once(engine: AsyncEngine, receiver: Receiver) -> None:
    told = Told()
    run = await ended(engine, f"{receiver.origin}/slow")
    async with calling(engine, told) as calls:
        await receiver.heard()
    (call,) = await calls.of_run(run.id)
    assert (call.attempts, told.outcomes) == (0, [])
    receiver.gate.set()
    async with calling(engine, told):
        await told.so_many(1)
    assert len({call_id for call_id, _ in receiver.verified}) == 1


async def test_a_call_whose_process_was_killed_in_the_middle_is_made_again_with_the_same_id(
    engine: AsyncEngine, receiver: Receiver, database_url: str
) -> None:
    told = Told()
    await ended(engine, f"{receiver.origin}/slow")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.jobs.calling", database_url, SECRET, cwd=ROOT
    )
    await receiver.heard()
    process.kill()
    await process.wait()
    receiver.gate.set()
    async with calling(engine, told):
        assert await told.so_many(1) == [Outcome.DELIVERED]
    assert len(receiver.verified) == 2
    assert len({call_id for call_id, _ in receiver.verified}) == 1


async def test_what_came_of_a_try_that_was_taken_over_is_not_written(engine: AsyncEngine) -> None:
    await ended(engine, "https://receiver.example/hook")
    calls, room = Calls(engine), Room(10, 10, {})
    (first,) = await calls.take(room, claim_s=0)
    (second,) = await calls.take(room, claim_s=30)
    assert not await calls.put_off(first, utcnow(), 500, "late")
    assert await calls.delivered(second, 200)
    assert not await calls.ended(second, 410, None)


async def test_what_ended_long_ago_is_forgotten_and_what_waits_is_not(engine: AsyncEngine) -> None:
    for node in ("done", "waits"):
        await ended(engine, "https://receiver.example/hook", node_id=node)
    calls = Calls(engine)
    done, _ = await calls.take(Room(2, 2, {}), claim_s=30)
    await calls.delivered(done, 200)
    later = utcnow() + dt.timedelta(days=31)
    assert (await calls.forget(later), await calls.forget(later)) == (1, 0)


def test_a_wave_of_calls_is_spread() -> None:
    waits = [wait_s(3, jitter / 100) for jitter in range(100)]
    assert min(wait for wait in waits if wait is not None) == pytest.approx(1440, abs=1)
    assert max(wait for wait in waits if wait is not None) == pytest.approx(2153, abs=1)
    assert len({round(wait or 0) for wait in waits}) == 100


@pytest.mark.parametrize("failures", range(1, 12))
@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_nothing_is_tried_before_the_receiver_wants_it_nor_after_the_plan(failures: int, jitter: float) -> None:
    asked = wait_s(failures, jitter, 100_000.0)
    assert (asked is None) == (failures > 9)
    assert asked is None or asked >= 100_000
    own = wait_s(failures, jitter)
    assert own is None or 0.8 * PLAN_S[failures - 1] <= own <= 1.2 * PLAN_S[failures - 1]
