"""What runs cost: a row for every bill, and for every call that may have been billed without our seeing the answer."""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from jobs.run import Run
from jobs.state import (
    Answered,
    Cancelled,
    Completed,
    Event,
    Failed,
    FellBack,
    Interrupted,
    RetryScheduled,
    Stage,
    Started,
)
from jobs.tables import run_costs

AMBIGUOUS: Final = "ambiguous"
"""Source of a row for a call whose answer never came: the estimate, which the maker may or may not have billed."""
_CALLING: Final = frozenset({Stage.SUBMITTING, Stage.GENERATING})


def settle(connection: sa.Connection, before: Run, after: Run, event: Event) -> None:
    """Write what an event says was billed, in the transaction that records the event.

    Args:
        connection: The transaction.
        before: The run as it was.
        after: The run as the event left it.
        event: Any.

    """
    cost = event.cost if isinstance(event, Answered | Completed) else None
    if cost is not None:
        _write(connection, before, after, cost.usd_micros, cost.source, cost.detail)
    elif before.estimate_usd_micros != 0 and lost(before, event) and not _billed(connection, before):
        _write(connection, before, after, before.estimate_usd_micros or 0, AMBIGUOUS, {})


def lost(before: Run, event: Event) -> bool:
    """Whether with this event the answer to a call is lost that the maker may have billed. Pure."""
    match event:
        case Interrupted(ambiguous):
            return ambiguous
        case RetryScheduled(error, _) | Failed(error):
            return error.billing_ambiguous
        case FellBack():
            return event.error.billing_ambiguous
        case Started():
            # Taken over from a worker that died while the maker was at it.
            return before.worker is not None and before.remote_id is None and before.stage in _CALLING
        case Cancelled():
            calling = before.worker is not None and before.stage in _CALLING
            return calling or before.remote_id is not None
        case _:
            return False


def _billed(connection: sa.Connection, run: Run) -> bool:
    """Whether the attempt has been billed already: then nothing was lost but what came after."""
    query = sa.select(sa.func.count()).where(run_costs.c.run_id == run.id, run_costs.c.attempt == run.attempt)
    return bool((connection.execute(query)).scalar_one())


def _write(
    connection: sa.Connection, before: Run, after: Run, usd_micros: int, source: str, detail: Mapping[str, int]
) -> None:
    row = {
        "run_id": after.id,
        "number": after.seq,
        # A takeover, or a change to another maker, is told of what was lost before it.
        "attempt": before.attempt,
        "provider": before.provider,
        "model": before.model,
        "workflow_id": after.workflow_id,
        "user_id": after.user_id,
        "usd_micros": usd_micros,
        "source": source,
        "detail": dict(detail),
        "billed_at": after.updated_at,
    }
    connection.execute(sa.insert(run_costs).values(**row))
