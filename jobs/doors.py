"""What is written about runs goes through here: no picture bytes, whatever a maker or a client sent. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from crdt.json import Json
from crdt.values import without_data_urls, without_picture_bytes
from jobs.state import (
    Accepted,
    Cancelled,
    Completed,
    Event,
    Failed,
    FellBack,
    Heard,
    Incident,
    Requested,
    RetryScheduled,
    RunError,
)

__all__ = ["clean_event", "clean_people", "for_table"]


def for_table(value: Json) -> Json:
    """JSON from outside as a table may keep it: a webhook's payload, metadata, a setting of a node."""
    return without_data_urls(value)


def clean_event(event: Event) -> Event:  # noqa: PLR0911 - one case for each event
    """The event with texts of others cleaned: what is recorded, shown and told all comes from it."""
    match event:
        case Failed() | RetryScheduled():
            return replace(event, error=_clean_error(event.error))
        case FellBack():
            told = tuple(map(without_picture_bytes, event.adapted))
            return replace(event, error=_clean_error(event.error), adapted=told)
        case Accepted():
            return replace(event, remote_id=without_picture_bytes(event.remote_id))
        case Heard(delivery_id, state):
            return Heard(without_picture_bytes(delivery_id), without_picture_bytes(state))
        case Incident(code, message):
            return Incident(code, without_picture_bytes(message))
        case Completed():
            return replace(event, adapted=tuple(map(without_picture_bytes, event.adapted)))
        case Requested(by):
            return Requested(clean_people(by))
        case Cancelled(by):
            return Cancelled(clean_people(by))
        case _:
            return event


def clean_people(by: Mapping[str, str]) -> dict[str, str]:
    """Who asked, as a table may keep it."""
    return {key: without_picture_bytes(value) for key, value in by.items()}


def _clean_error(error: RunError) -> RunError:
    vendor = None if error.vendor_code is None else without_picture_bytes(error.vendor_code)
    return replace(error, message=without_picture_bytes(error.message), vendor_code=vendor)
