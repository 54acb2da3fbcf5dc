"""Which runs somebody means: for lists and for cancels of many. Pure."""

import base64
import binascii
import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from jobs.run import Run
from jobs.state import Stage, Status
from jobs.tables import runs

UNFINISHED = (Status.PENDING.value, Status.RUNNING.value)


@dataclass(frozen=True, slots=True)
class Selection:
    """Runs that are all of this; what is None is anything.

    Attributes:
        user_id: Who asked for them.
        workflows: In one of these workflows; None in any.
        waiting: Only those that nobody works on: not begun, or between two tries.

    """

    workflow_id: str | None = None
    node_id: str | None = None
    batch_id: str | None = None
    user_id: str | None = None
    provider: str | None = None
    status: Status | None = None
    workflows: Collection[str] | None = None
    waiting: bool = False

    @property
    def everything(self) -> bool:
        """Whether it names nothing that would narrow it down."""
        named = (self.workflow_id, self.node_id, self.batch_id, self.user_id, self.provider)
        return all(name is None for name in named)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a list begins: behind this run, newest first."""

    created_at: dt.datetime
    run_id: str

    @classmethod
    def of(cls, run: Run) -> "Place":
        """The place behind a run."""
        return cls(run.created_at, run.id)

    def to_text(self) -> str:
        """An opaque text for clients."""
        return base64.urlsafe_b64encode(f"{self.created_at.isoformat()} {self.run_id}".encode()).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> "Place":
        """Read what `to_text` wrote.

        Raises:
            ValueError: Nobody wrote that here.

        """
        try:
            at, _, run_id = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_").decode().partition(" ")
            created_at = dt.datetime.fromisoformat(at)
        except (binascii.Error, UnicodeError, ValueError):
            raise ValueError("is not the next of a page before") from None
        if created_at.tzinfo is None or not run_id:
            raise ValueError("is not the next of a page before")
        return cls(created_at, run_id)


def matching(selection: Selection) -> list[sa.ColumnElement[bool]]:
    """What must hold for a row of `runs`."""
    named: dict[sa.Column[Any], str | None] = {
        runs.c.subject_id: selection.workflow_id,
        runs.c.node_id: selection.node_id,
        runs.c.batch_id: selection.batch_id,
        runs.c.user_id: selection.user_id,
        runs.c.provider: selection.provider,
        runs.c.status: selection.status.value if selection.status is not None else None,
    }
    found: list[sa.ColumnElement[bool]] = [column == value for column, value in named.items() if value is not None]
    if selection.workflows is not None:
        found.append(runs.c.subject_id.in_(sorted(selection.workflows)))
    if selection.waiting:
        found.append(runs.c.stage == Stage.QUEUED.value)
    return found


def page(selection: Selection, limit: int, behind: Place | None) -> sa.Select[Any]:
    """Select these runs, newest first."""
    query = sa.select(runs).where(*matching(selection))
    if behind is not None:
        query = query.where(
            sa.or_(
                runs.c.created_at < behind.created_at,
                sa.and_(runs.c.created_at == behind.created_at, runs.c.id < behind.run_id),
            )
        )
    return query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)


def unfinished_ids(selection: Selection, limit: int, after_id: str) -> sa.Select[Any]:
    """Select ids of those that have not ended, in their order, behind `after_id`."""
    query = sa.select(runs.c.id).where(runs.c.status.in_(UNFINISHED), runs.c.id > after_id, *matching(selection))
    return query.order_by(runs.c.id).limit(limit)
