import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.limits import DEFAULTS, BadLimits, Call, Limit, Limits, Rate, parse_limits


def busiest(moments: list[float], window_s: float) -> int:
    """The most calls in any half-open window of this length."""
    return max(sum(first <= other < first + window_s for other in moments) for first in moments)


def made(rate: Rate, count: int, *, images: int = 1, now: float = 0.0) -> list[Call]:
    """Calls of somebody who always has another one waiting."""
    calls: list[Call] = []
    for _ in range(count):
        calls.append(Call(rate.earliest(calls, now, images), images))
        now = calls[-1].at
    return calls


@given(
    st.integers(1, 12),
    st.floats(0.1, 100, allow_nan=False),
    st.booleans(),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5), st.floats(0, 1)), min_size=1, max_size=40),
)
def test_no_window_ever_holds_more_than_the_limit_however_late_calls_leave(
    count: int,
    window_s: float,
    images: bool,  # noqa: FBT001 - hypothesis draws it
    asked: list[tuple[float, int, float]],
) -> None:
    rate = Rate(count, window_s, images=images)
    now = 0.0
    calls: list[Call] = []
    left: list[float] = []
    for pause, pictures, late in asked:
        now += pause * window_s / 2
        calls.append(Call(rate.earliest(calls, now, pictures), pictures))
        left += [calls[-1].at + late * rate.slack_s] * rate.units(pictures)
    assert [call.at for call in calls] == sorted(call.at for call in calls)
    assert busiest(left, window_s) <= count


@given(st.integers(1, 40), st.floats(0.5, 100, allow_nan=False))
def test_who_always_has_a_call_waiting_uses_what_there_is(count: int, window_s: float) -> None:
    rate = Rate(count, window_s)
    calls = made(rate, count * 6)
    assert calls[-1].at <= 6 * rate.span_s


@given(st.integers(2, 40))
def test_half_of_the_budget_goes_at_once_and_the_rest_at_even_distances(count: int) -> None:
    rate = Rate(count, 10.0)
    moments = [call.at for call in made(rate, count)]
    half = math.ceil(count / 2)
    assert moments[:half] == [0.0] * half
    gaps = [after - before for before, after in zip(moments[half - 1 :], moments[half:], strict=False)]
    assert gaps == pytest.approx([rate.span_s / count] * (count - half))


def test_pictures_count_where_the_limit_is_one_on_pictures() -> None:
    assert Rate(5, 60.0, images=True).earliest([Call(0.0, 4)], 1.0, 2) >= 60.0
    assert Rate(5, 60.0).earliest([Call(0.0, 4)], 1.0, 2) == 1.0


def test_a_call_for_more_pictures_than_a_window_takes_is_made_alone() -> None:
    rate = Rate(5, 60.0, images=True)
    assert rate.earliest([], 1.0, 10) == 1.0
    assert rate.earliest([Call(0.0, 1)], 1.0, 10) >= 60.0


def test_defaults_are_those_of_the_makers() -> None:
    limits = parse_limits("")
    assert limits == Limits(dict(DEFAULTS))
    assert [str(limit) for _, limit in limits.of("openai", "gpt-image-2")] == ["5 images/60s"]
    assert [str(limit) for _, limit in limits.of("ideogram", "v3")] == ["10 at once"]
    assert not list(limits.of("demo", "demo"))


def test_what_is_set_takes_the_place_of_a_default_of_its_kind() -> None:
    limits = parse_limits(" openai=50/60s, openai:gpt-image-2=20/1m ,openai=8, stability=4")
    assert limits.scopes["openai"] == Limit((Rate(50, 60.0),), 8)
    assert limits.scopes["openai:gpt-image-2"] == Limit((Rate(20, 60.0),))
    assert limits.scopes["stability"] == Limit(DEFAULTS["stability"].rates, 4)
    assert parse_limits("openai=tier3").scopes["openai"] == Limit((Rate(50, 60.0, images=True),))
    assert "ideogram" not in parse_limits("ideogram=none").scopes
    assert parse_limits("x=3/s,x=100/h").scopes["x"] == Limit((Rate(3, 1.0), Rate(100, 3600.0)))
    assert parse_limits("openai=20 images/1m").scopes["openai"] == Limit((Rate(20, 60.0, images=True),))


BAD = (
    "openai|openai=|=5|openai=0|openai=-1|openai=5/|openai=5/0s|openai=5/2d|openai=x/60s|open ai=5|openai=5/60"
    "|openai:=5|openai=1000000|stability=tier2|openai=\u0665"
)


@pytest.mark.parametrize("text", BAD.split("|"))
def test_a_bad_limit_names_the_part_that_is_wrong(text: str) -> None:
    with pytest.raises(BadLimits) as caught:
        parse_limits(f"ideogram=5,{text}")
    assert repr(text) in str(caught.value)
