"""When to try again, how long to wait, and what a failure means to people. Pure."""

from dataclasses import dataclass
from typing import Final, TypeAlias

from jobs.state import Action, RunError, Stage
from providers.errors import ErrorClass, ErrorKind, ProviderError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of a run.

    Attributes:
        max_attempts: Attempts that may fail before the run does.
        base_s: Upper bound of the first wait; it doubles with every failure.
        cap_s: No wait of our own is longer.
        retry_after_cap_s: A maker that asks for more is obeyed for so long.
        attempt_limit_s: Time one call of a maker may take.
        poll_limit: Polls before a run that its maker never finishes has failed.
        poll_min_s: A maker that asks to be polled more often is not.
        poll_max_s: A maker that asks to be polled more rarely is not believed.
        upload_tries: Tries to store one picture, and to fetch one.
        notice_limit_s: Time that telling a maker of a cancel may take.
        refusals_limit_s: A maker that has no time for a run is asked again for so long since the run's first attempt.

    """

    max_attempts: int = 3
    base_s: float = 2.0
    cap_s: float = 60.0
    retry_after_cap_s: float = 300.0
    attempt_limit_s: float = 300.0
    poll_limit: int = 60
    poll_min_s: float = 0.05
    poll_max_s: float = 60.0
    upload_tries: int = 3
    notice_limit_s: float = 5.0
    refusals_limit_s: float = 1_800.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after so many seconds."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Fail:
    """Do not try again."""


Decision: TypeAlias = Retry | Fail

ACTIONS: Final = {
    ErrorKind.POLICY: Action.CHANGE_PROMPT,
    ErrorKind.BAD_REQUEST: Action.CHANGE_SETTINGS,
    ErrorKind.QUOTA: Action.ADD_CREDIT,
    ErrorKind.EXPIRED: Action.RETRY,
    ErrorKind.TIMEOUT: Action.RETRY,
    ErrorClass.TEMPORARY: Action.RETRY,
    ErrorClass.RATE_LIMIT: Action.WAIT,
    ErrorClass.AUTH_ERROR: Action.CHECK_KEY,
    ErrorClass.PERMANENT: Action.CHANGE_SETTINGS,
}
"""What a person can do; the kind of an error wins over its class."""


def backoff_s(failures: int, policy: RetryPolicy, jitter: float) -> float:
    """Seconds to wait before the next attempt.

    Args:
        failures: Attempts that have failed, from 1.
        policy: Its limits.
        jitter: In [0, 1); the caller draws it.

    Returns:
        Seconds, less than `policy.cap_s`.

    Source: exponential backoff with full jitter.

    """
    # Bounded before it is raised to a power: 2 ** 5000 is no float.
    doublings = min(max(failures - 1, 0), 64)
    return float(jitter * min(policy.cap_s, policy.base_s * 2**doublings))


def decide(error: ProviderError, failures: int, policy: RetryPolicy, jitter: float) -> Decision:
    """Whether a failed attempt is followed by another, and when.

    Args:
        error: What went wrong.
        failures: Attempts that have failed, this one included.
        policy: Its limits.
        jitter: In [0, 1); the caller draws it.

    """
    if not error.retryable or failures >= policy.max_attempts:
        return Fail()
    own = backoff_s(failures, policy, jitter)
    if error.retry_after_s is None:
        return Retry(own)
    # Never before the maker said; a little after it, so that parked runs do not come back in one moment.
    asked = min(max(error.retry_after_s, 0.0), policy.retry_after_cap_s)
    return Retry(asked + min(own, policy.base_s))


def too_busy(label: str, waited_s: float, stage: Stage) -> RunError:
    """A maker that went on asking for fewer calls."""
    return RunError(
        code="rate_limit",
        message=f"{label} has taken no more calls for {waited_s / 60:.0f} minutes. Try again later.",
        retryable=True,
        action=Action.WAIT,
        error_class=ErrorClass.RATE_LIMIT,
        stage=stage,
    )


def deadline_passed(stage: Stage) -> RunError:
    """A run that has not ended by the time it was given."""
    begun = "while it waited for its turn" if stage is Stage.QUEUED else "before it was finished"
    return RunError(
        code="deadline",
        message=f"The time given for this picture ran out {begun}. Ask again, with more time if you can.",
        retryable=True,
        action=Action.RETRY,
        error_class=ErrorClass.PERMANENT,
        kind=ErrorKind.TIMEOUT,
        stage=stage,
        billing_ambiguous=stage is not Stage.QUEUED,
    )


def poll_after_s(asked: float, policy: RetryPolicy) -> float:
    """Seconds until the next poll, from what the maker suggests."""
    return min(max(asked, policy.poll_min_s), policy.poll_max_s)


def run_error(error: ProviderError, stage: Stage, code: str | None = None) -> RunError:
    """A maker's error as the run keeps it; `code` in place of the one its kind or class gives."""
    reason = error.kind or error.error_class
    return RunError(
        code=code or reason.value.lower(),
        message=error.message,
        retryable=error.retryable or reason in {ErrorKind.EXPIRED, ErrorKind.TIMEOUT},
        action=ACTIONS[reason],
        error_class=error.error_class,
        kind=error.kind,
        stage=stage,
        vendor_code=error.vendor_code,
        billing_ambiguous=error.billing_ambiguous,
    )


def refused(message: str, stage: Stage, *, code: str = "bad_request") -> RunError:
    """A request that cannot be made as it is; nothing was billed."""
    return RunError(
        code=code,
        message=message,
        retryable=False,
        action=Action.CHANGE_SETTINGS,
        error_class=ErrorClass.PERMANENT,
        kind=ErrorKind.BAD_REQUEST,
        stage=stage,
    )


def bad_image(label: str, reason: str, stage: Stage) -> RunError:
    """A maker that answered with something that is not a picture."""
    return RunError(
        code="bad_image",
        message=f"{label} answered with something that cannot be used as a picture: {reason}",
        retryable=True,
        action=Action.RETRY,
        error_class=ErrorClass.PERMANENT,
        stage=stage,
    )


def storage_failed(stage: Stage) -> RunError:
    """A picture that was made but could not be stored."""
    return RunError(
        code="storage_unavailable",
        message="The picture was made but could not be stored. Try again when the image store works.",
        retryable=True,
        action=Action.RETRY,
        error_class=ErrorClass.TEMPORARY,
        stage=stage,
    )


def worker_lost(stage: Stage, crashes: int) -> RunError:
    """A run that brought its worker down again and again."""
    return RunError(
        code="worker_lost",
        message=f"The server stopped {crashes} times while it worked on this picture, so it was given up.",
        retryable=True,
        action=Action.RETRY,
        error_class=ErrorClass.PERMANENT,
        stage=stage,
        billing_ambiguous=True,
    )
