import math

from hypothesis import given
from hypothesis import strategies as st

from server.limits import LONGEST_PAUSE_S, PATIENCE_S, Allowance, Meter, Rate, Share

ALLOWED = Allowance(Rate(per_s=100, burst=200), Rate(per_s=10_000, burst=50_000))


def meter(*more: Share, allowed: Allowance = ALLOWED) -> Meter:
    return Meter([Share.of(allowed, 0.0), *more])


def send(meter: Meter, size: int, now: float) -> float:
    """One message, as the receive path counts it; how long to read nothing."""
    meter.messages -= 1
    meter.size -= size
    return meter.settle(now) if meter.messages < 0 or meter.size < 0 else 0.0


def sent_in(meter: Meter, duration_s: float, size: int = 1, each_s: float = 0.0001) -> int:
    """How many messages of a client that sends all the time are read."""
    now, count = 0.0, 0
    while now < duration_s:
        pause_s = send(meter, size, now)
        count += 1
        if pause_s == math.inf:
            break
        now += max(pause_s, each_s)
    return count


def test_what_people_do_is_never_held_back() -> None:
    dragging = meter()
    assert all(send(dragging, 100, number / 60) == 0 for number in range(60 * 60))


@given(st.floats(1, PATIENCE_S - 1))
def test_a_flood_is_read_at_the_rate_it_may_have_after_its_burst(duration_s: float) -> None:
    lump = 100 * 0.05 + 1
    count = sent_in(meter(), duration_s)
    assert 200 <= count <= 200 + 100 * (duration_s + 1) + lump


def test_bytes_are_limited_like_messages() -> None:
    assert sent_in(meter(), 5, size=10_000) <= 5 + 5 + 2


def test_who_goes_on_is_told_to_go_after_a_while_and_not_before() -> None:
    flood = meter()
    now = 0.0
    while (pause_s := send(flood, 1, now)) != math.inf:
        assert now <= PATIENCE_S + 2 * LONGEST_PAUSE_S + 2
        now += max(pause_s, 0.0001)
    assert now > PATIENCE_S


def test_who_rests_in_between_is_not_told_to_go() -> None:
    bursts = meter()
    for burst in range(20):
        assert all(send(bursts, 1, burst * 4) < math.inf for _ in range(250))


def test_the_largest_message_passes_at_once_and_the_next_one_waits() -> None:
    allowed = Allowance.of(300, 1000, 100_000)
    one = meter(allowed=allowed)
    assert send(one, 100_000, 0.0) == 0
    assert send(one, 100_000, 0.1) == LONGEST_PAUSE_S


def test_connections_of_one_person_share_what_that_person_has() -> None:
    person = Share.of(Allowance(Rate(150, 150)), 0.0)
    counts = [sent_in(meter(person), 4), sent_in(meter(person), 4)]
    assert sum(counts) <= 150 + 4 * 150 + 2 * 6 + 150


def test_zero_is_without_limit() -> None:
    free = meter(allowed=Allowance.of(0, 0, 1))
    assert all(send(free, 10**9, 0.0) == 0 for _ in range(1000))
