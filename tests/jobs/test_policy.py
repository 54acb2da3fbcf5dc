import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.policy import ACTIONS, Fail, Retry, RetryPolicy, backoff_s, decide, poll_after_s, run_error
from jobs.state import Action, Stage
from providers.errors import ErrorClass, ErrorKind, ProviderError

POLICY = RetryPolicy()
JITTER = st.floats(0, 1, exclude_max=True)
WAITS = st.floats(-10, 1e6, allow_nan=False)


def error(kind: ErrorClass = ErrorClass.TEMPORARY, retry_after_s: float | None = None) -> ProviderError:
    return ProviderError("It failed.", kind, retry_after_s=retry_after_s)


@given(st.integers(1, 10_000), JITTER)
def test_backoff_is_never_negative_and_never_beyond_the_cap(failures: int, jitter: float) -> None:
    assert 0 <= backoff_s(failures, POLICY, jitter) <= POLICY.cap_s


@given(st.integers(1, 100), JITTER)
def test_the_bound_of_the_backoff_never_falls(failures: int, jitter: float) -> None:
    assert backoff_s(failures, POLICY, jitter) <= backoff_s(failures + 1, POLICY, jitter)


def test_the_jitter_is_full() -> None:
    assert backoff_s(3, POLICY, 0.0) == 0.0
    assert backoff_s(3, POLICY, 0.5) == POLICY.base_s * 4 / 2


@given(st.integers(1, 10), JITTER, WAITS)
def test_the_maker_is_obeyed_up_to_a_cap(failures: int, jitter: float, asked: float) -> None:
    decision = decide(error(ErrorClass.RATE_LIMIT, asked), failures, POLICY, jitter)
    if failures >= POLICY.max_attempts:
        assert decision == Fail()
    else:
        assert isinstance(decision, Retry)
        assert min(asked, POLICY.retry_after_cap_s) <= decision.after_s <= POLICY.retry_after_cap_s + POLICY.base_s
        assert decision.after_s >= 0


@pytest.mark.parametrize("kind", [ErrorClass.PERMANENT, ErrorClass.AUTH_ERROR])
def test_what_cannot_get_better_is_not_tried_again(kind: ErrorClass) -> None:
    assert decide(error(kind, 1.0), 1, POLICY, 0.5) == Fail()


@pytest.mark.parametrize(("failures", "expected"), [(1, Retry), (2, Retry), (3, Fail), (4, Fail)])
def test_a_run_has_three_attempts(failures: int, expected: type) -> None:
    assert isinstance(decide(error(), failures, POLICY, 0.5), expected)


@given(st.floats(allow_nan=False))
def test_polls_are_neither_too_many_nor_too_few(asked: float) -> None:
    assert POLICY.poll_min_s <= poll_after_s(asked, POLICY) <= POLICY.poll_max_s


@pytest.mark.parametrize("kind", [*ErrorKind, None])
@pytest.mark.parametrize("error_class", list(ErrorClass))
def test_every_error_of_a_maker_has_a_code_and_something_to_do(error_class: ErrorClass, kind: ErrorKind | None) -> None:
    told = run_error(ProviderError("It failed.", error_class, kind), Stage.GENERATING)
    assert told.code == (kind or error_class).value.lower()
    assert told.action in Action
    assert (kind or error_class) in ACTIONS


def test_a_run_out_of_attempts_may_still_be_asked_for_again() -> None:
    assert run_error(error(), Stage.SUBMITTING).retryable
    assert not run_error(ProviderError("No.", ErrorClass.PERMANENT, ErrorKind.POLICY), Stage.SUBMITTING).retryable
