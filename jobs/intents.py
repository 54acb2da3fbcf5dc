"""Requests that peers put into the document instead of sending them by HTTP. Pure."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from crdt.errors import CrdtError, NodeNotFound
from crdt.json import Json
from jobs.errors import (
    BudgetExceeded,
    IdempotencyConflict,
    IntentRefused,
    JobsError,
    RunActive,
    RunNotFound,
    StaleRequest,
)
from jobs.requests import UNSET, Unset
from providers.errors import ImageMakingError, InvalidSpec, RequestRefused, UnknownModel, UnknownProvider

MAX_ID_CHARS: Final = 128
MAX_TEXT_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class RunIntent:
    """Make a picture in this node; `after` is the run that was seen as its current one."""

    id: str
    after: str | Unset | None = UNSET
    provider: str | None = None
    model: str | None = None
    by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CancelIntent:
    """Cancel a run of this node."""

    id: str
    run_id: str
    by: Mapping[str, str] = field(default_factory=dict)


Intent: TypeAlias = RunIntent | CancelIntent
Ask: TypeAlias = Callable[[str, str, Intent], Awaitable[None]]
"""Does what the HTTP route does, given (workflow id, node id, intent).

Raises `IntentRefused`, or an error of the document, of runs or of makers that says why not; an error of an outage is
tried again. It may be asked twice for one intent: one without `after` wants the intent's id as idempotency key.
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an intent was not done, for whoever asked."""

    node_id: str
    code: str
    message: str

    def to_json(self) -> dict[str, Json]:
        """Camel-case JSON."""
        return {"nodeId": self.node_id, "code": self.code, "message": self.message}


def parse_intent(value: Json) -> Intent:
    """An intent out of what a peer wrote.

    Raises:
        IntentRefused: It is none.

    """
    if not isinstance(value, Mapping):
        raise IntentRefused("bad-intent", "a request must be an object {after, id}")
    intent_id = _text(value, "id", MAX_ID_CHARS)
    if not intent_id:
        raise IntentRefused("bad-intent", "a request needs an id")
    if "cancel" in value:
        run_id = _text(value, "cancel", MAX_ID_CHARS)
        if not run_id:
            raise IntentRefused("bad-intent", "cancel must name a run")
        return CancelIntent(intent_id, run_id, _by(value.get("by")))
    return RunIntent(
        intent_id,
        after=_text(value, "after", MAX_ID_CHARS) or None if "after" in value else UNSET,
        provider=_text(value, "provider", MAX_TEXT_CHARS) or None,
        model=_text(value, "model", MAX_TEXT_CHARS) or None,
        by=_by(value.get("by")),
    )


def intent_id_of(value: Json) -> str | None:
    """The id of something that may be an intent."""
    intent_id = value.get("id") if isinstance(value, Mapping) else None
    return intent_id[:MAX_ID_CHARS] if isinstance(intent_id, str) and intent_id else None


def refusal_of(error: Exception, node_id: str) -> Refusal | None:
    """The refusal an error stands for; None for an error that says nothing to whoever asked."""
    if isinstance(error, IntentRefused):
        return Refusal(node_id, error.code, error.message)
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return Refusal(node_id, code, str(error))
    return None


_CODES: Final[Mapping[type[Exception], str]] = {
    StaleRequest: "stale-request",
    RunActive: "run-active",
    RunNotFound: "run-not-found",
    IdempotencyConflict: "idempotency-conflict",
    BudgetExceeded: "budget-exceeded",
    InvalidSpec: "invalid-request",
    RequestRefused: "invalid-request",
    UnknownProvider: "unknown-provider",
    UnknownModel: "unknown-model",
    NodeNotFound: "node-not-found",
    ImageMakingError: "refused",
    CrdtError: "refused",
    JobsError: "refused",
}
"""Most specific first."""


def _text(value: Mapping[str, Json], key: str, max_chars: int) -> str | None:
    text = value.get(key)
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > max_chars:
        raise IntentRefused("bad-intent", f"{key} must be a text of at most {max_chars} characters")
    return text


def _by(value: Json) -> dict[str, str]:
    """Who says they ask: {id?, name?}."""
    if not isinstance(value, Mapping):
        return {}
    known = {key: value.get(key) for key in ("id", "name")}
    return {key: text[:MAX_TEXT_CHARS] for key, text in known.items() if isinstance(text, str) and text}
