"""Putting stored updates into a document, where each of them may be one too many for it."""

from collections.abc import Callable, Iterable

from pycrdt import Doc

from crdt.canvas import CanvasDoc
from crdt.errors import Poison
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
