"""What runs cost: a row for every bill."""

import sqlalchemy as sa

from jobs.run import Run
from jobs.state import Answered, Completed, Event
from jobs.tables import run_costs


def settle(connection: sa.Connection, run: Run, event: Event) -> None:
    """Write what an event says was billed, in the transaction that records the event.

    Args:
        connection: The transaction.
        run: As the event left it.
        event: Any.

    """
    cost = event.cost if isinstance(event, Answered | Completed) else None
    if cost is None:
        return
    row = {
        "run_id": run.id,
        "number": run.seq,
        "attempt": run.attempt,
        "provider": run.provider,
        "model": run.model,
        "workflow_id": run.workflow_id,
        "user_id": run.user_id,
        "usd_micros": cost.usd_micros,
        "source": cost.source,
        "detail": dict(cost.detail),
        "billed_at": run.updated_at,
    }
    connection.execute(sa.insert(run_costs).values(**row))
