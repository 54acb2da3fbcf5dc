"""Errors of durable runs.

JobsError
 ├── IllegalTransition     an event that the run's status does not allow
 ├── RunNotFound           no run has this id
 ├── RequestError          a run that cannot be requested as asked
 │    ├── StaleRequest          `after` names a run that is no longer the node's current one
 │    ├── RunActive             the node's current run has not ended yet
 │    ├── IdempotencyConflict   the key was used before, with another body
 │    ├── BudgetExceeded        a budget has no room for it
 │    ├── NothingToUse          an earlier run that made no picture cannot be gone back to
 │    └── BatchRefused          one request of a batch cannot be made, so none was
 ├── WriteRefused          an event that came too late to be recorded
 │    ├── StaleAttempt          another attempt has taken the run over
 │    └── RunFinished           the run has ended; terminal states never change
 ├── RunBusy               another worker, believed alive, works on the run
 ├── BadImage              bytes that are not a picture we accept
 ├── BadKey                a key that no stored picture can have
 ├── StorageUnavailable    the image store failed for a passing reason
 ├── DatabaseAway          the database did not answer for as long as we were ready to wait
 ├── QueueAway             the job queue does not answer
 └── IntentRefused         an intent in the document that cannot be done
"""

import datetime as dt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.run import Run


class JobsError(Exception):
    """Base of every error this package raises on purpose."""


class IllegalTransition(JobsError):
    """An event that cannot happen to a run in this status."""

    def __init__(self, status: str, event: str) -> None:
        super().__init__(status, event)
        self.status = status
        self.event = event

    def __str__(self) -> str:
        return f"a {self.status} run cannot take {self.event!r}"


class RunNotFound(JobsError):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"there is no run {self.run_id!r}"


class RequestError(JobsError):
    """A run that cannot be requested as asked."""


class StaleRequest(RequestError):
    """`after` is neither the node's current run nor one that a run was requested after; carries the current run."""

    def __init__(self, current: "Run | None") -> None:
        super().__init__(current)
        self.current = current

    def __str__(self) -> str:
        return "the node has moved on: another run is its current one"


class RunActive(RequestError):
    """The node's current run has not ended yet: cancel it or wait; carries it."""

    def __init__(self, current: "Run") -> None:
        super().__init__(current)
        self.current = current

    def __str__(self) -> str:
        return f"run {self.current.id!r} of this node is still {self.current.status}"


class IdempotencyConflict(RequestError):
    """The idempotency key was used before with another body."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return "this idempotency key was used before with another body"


class BudgetExceeded(RequestError):
    """A budget has no room for what is asked; `index` counts within what was asked at once. Money in micro-dollars."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a person needs to know of it
        self,
        index: int,
        scope: str,
        key: str,
        period: str,
        limit_usd_micros: int,
        spent_usd_micros: int,
        reserved_usd_micros: int,
        asked_usd_micros: int | None,
    ) -> None:
        super().__init__(index, scope, key, period)
        self.index = index
        self.scope = scope
        self.key = key
        self.period = period
        self.limit_usd_micros = limit_usd_micros
        self.spent_usd_micros = spent_usd_micros
        self.reserved_usd_micros = reserved_usd_micros
        self.asked_usd_micros = asked_usd_micros

    def __str__(self) -> str:
        when = {"day": "daily ", "month": "monthly "}.get(self.period, "")
        whose = {"all": "this server", "workflow": "this canvas", "user": "this person"}.get(self.scope, self.key)
        asked = "the price of this is not known"
        if self.asked_usd_micros is not None:
            asked = f"this would cost about {_usd(self.asked_usd_micros)}"
        wait = {"day": "wait until midnight (UTC), ", "month": "wait until next month (UTC), "}.get(self.period, "")
        return (
            f"the {when}budget of {whose} has no room for it: of {_usd(self.limit_usd_micros)}"
            f" {_usd(self.spent_usd_micros)} are spent and {_usd(self.reserved_usd_micros)} reserved for runs that have"
            f" not ended, and {asked}; {wait}cancel what waits, choose something cheaper, or have the budget raised"
        )


class NothingToUse(RequestError):
    """An earlier run without a picture, or of another node, cannot be gone back to."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"run {self.run_id!r} made no picture that could be used again"


class BatchRefused(RequestError):
    """One request of a batch cannot be made, for the reason in `cause`; none was made."""

    def __init__(self, index: int, cause: RequestError) -> None:
        super().__init__(index, cause)
        self.index = index
        self.cause = cause

    def __str__(self) -> str:
        return f"requests.{self.index}: {self.cause}"


class WriteRefused(JobsError):
    """An event that came too late to be recorded; nothing was written."""

    def __init__(self, run: "Run") -> None:
        super().__init__(run)
        self.run = run


class StaleAttempt(WriteRefused):
    """Another attempt has taken the run over, or this one was closed already; carries the run as it is."""

    def __str__(self) -> str:
        return f"run {self.run.id!r} is at attempt {self.run.attempt}"


class RunFinished(WriteRefused):
    """The run has ended; carries it as it is."""

    def __str__(self) -> str:
        return f"run {self.run.id!r} is {self.run.status}"


class RunBusy(JobsError):
    """Another worker, believed alive, works on the run; at `retry_at` it will have shown whether it lives."""

    def __init__(self, run_id: str, worker: str, retry_at: dt.datetime) -> None:
        super().__init__(run_id, worker, retry_at)
        self.run_id = run_id
        self.worker = worker
        self.retry_at = retry_at

    def __str__(self) -> str:
        return f"worker {self.worker!r} works on run {self.run_id!r}"


class BadImage(JobsError):
    """Bytes that are not a picture we accept; `reason` is one plain sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class BadKey(JobsError):
    """A key that no stored picture can have."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return "not a key of a stored picture"


class StorageUnavailable(JobsError):
    """The image store failed for a reason that may pass (disk full, network); a later try may succeed."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"the picture {self.key!r} cannot be stored or read now: {self.reason}"


class DatabaseAway(JobsError):
    """The database did not answer for as long as we were ready to wait; the last write may have been committed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the database does not answer: {self.reason}"


class QueueAway(JobsError):
    """The job queue does not answer; what could not be added is found by a later sweep."""


class IntentRefused(JobsError):
    """An intent in the document that cannot be done; `code` and `message` are shown to whoever asked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


def _usd(micros: int) -> str:
    """An amount as people write it, with as many digits as small prices need."""
    text = f"{micros / 1_000_000:.4f}"
    whole, _, cents = text.partition(".")
    return f"${whole}.{cents[:2]}{cents[2:].rstrip('0')}"
