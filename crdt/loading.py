"""Putting updates into a document, where each of them may be one too many for it."""

from collections.abc import Callable, Iterable

from pycrdt import Doc, get_update

from crdt import protocol
from crdt.canvas import CanvasDoc
from crdt.errors import BadUpdate, Poison
from crdt.waiting import Waiting


def document_of(state: Iterable[bytes], client_id: int) -> CanvasDoc:
    """A document of stored updates (v1).

    Raises:
        Poison: It does not take one of them, or broke.

    """
    doc: CanvasDoc = Doc(client_id=client_id)
    for update in state:
        give(doc.apply_update, update)
    return doc


def waiting_of(doc: CanvasDoc, applied: Iterable[bytes]) -> Waiting:
    """What waits in a document that was made of these updates (v1)."""
    waiting = Waiting(doc.get_state)
    for update in applied:
        waiting.note(update)
    return waiting


def brings_something(doc: CanvasDoc, update: bytes) -> bool:
    """Whether an update (v1) would change a document; nothing is applied.

    Raises:
        BadUpdate: It is none.

    """
    state_vector = doc.get_state()
    try:
        lacking = protocol.deleted_ranges(get_update(update, state_vector))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise BadUpdate("not a Yjs update") from error
    if not lacking:
        return lacking is None
    # A delete set travels whole, so a client that has seen everything sends what is deleted here already.
    known = protocol.deleted_ranges(doc.get_update(state_vector))
    return known is None or not protocol.covers(known, lacking)


def give(apply: Callable[[bytes], object], update: bytes) -> None:
    """Give an update (v1) to a document.

    Raises:
        Poison: It does not take it, or broke.

    """
    try:
        apply(update)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise poison_of(update, error) from error


def poison_of(update: bytes, error: BaseException) -> Poison:
    """The error of an update that failed with another."""
    # A panic inside yrs arrives as a BaseException that is no Exception.
    return Poison(update, panicked=not isinstance(error, Exception), reason=f"{type(error).__name__}: {error}"[:300])
