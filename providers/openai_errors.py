"""OpenAI's errors, and those of its SDK, in our words. Pure: the time of day is an argument."""

import functools
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx2

from providers.errors import ErrorClass, ErrorKind, ProviderError
from providers.retry_after import parse_retry_after

if TYPE_CHECKING:
    import openai

MAX_VENDOR_CHARS = 2_000
MAX_QUOTED_CHARS = 240

POLICY_CODES = frozenset(
    {
        "moderation_blocked",
        "content_policy_violation",
        "image_content_policy_violation",
        "bio_policy",
        "misalignment_policy_violation",
        "safety_violation",
    }
)
QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"})
RATE_CODES = frozenset({"rate_limit_exceeded", "rate_limit_error"})
KEY_CODES = frozenset({"invalid_api_key", "authentication_error", "permission_error"})
REQUEST_CODES = frozenset({"invalid_request_error", "image_generation_user_error", "invalid_value", "invalid_prompt"})
GATEWAY_LOST = frozenset({502, 504, 520, 522, 524})
"""A gateway lost the answer: the picture may have been made all the same."""

Mapper: TypeAlias = Callable[[Any, datetime], ProviderError]


def to_provider_error(error: Exception, now: datetime) -> ProviderError:
    """
    What a failure of the SDK, of its HTTP client, or of reading an answer means for us.

    Args:
        error: Anything; what no rule names is a permanent failure.
        now: An aware time, for Retry-After dates.
    """
    mapper = mapper_of(type(error))
    if mapper is None:
        return _failed("The request to OpenAI failed in an unexpected way.", ErrorClass.PERMANENT, error)
    return mapper(error, now)


def mapper_of(error_type: type[Exception]) -> Mapper | None:
    """The rule for an exception class: the first whose class it is."""
    return next((mapper for known, mapper in mappers() if issubclass(error_type, known)), None)


def stream_error(fields: Mapping[str, object]) -> ProviderError:
    """An error that arrived as an event of a stream, as a mapping with code, type and message."""
    broken = ProviderError("OpenAI broke off while making the picture.", ErrorClass.TEMPORARY)
    return _in_their_words(_by_code(_codes(fields), fields) or broken, fields)


def unreadable_answer(why: str) -> ProviderError:
    """OpenAI answered 200, and perhaps billed, but no picture can be read from it."""
    return ProviderError(
        "OpenAI answered without a picture that can be read.",
        ErrorClass.TEMPORARY,
        vendor_message=why[:MAX_VENDOR_CHARS],
        billing_ambiguous=True,
    )


def took_too_long(timeout_s: float) -> ProviderError:
    """No result within our own limit; OpenAI may still finish, and bill, the picture."""
    return ProviderError(
        f"OpenAI did not finish within {timeout_s:g} s.",
        ErrorClass.TEMPORARY,
        ErrorKind.TIMEOUT,
        billing_ambiguous=True,
    )


def _timed_out(error: Exception, _: datetime) -> ProviderError:
    failure = _failed("OpenAI stopped answering.", ErrorClass.TEMPORARY, error)
    failure.kind = ErrorKind.TIMEOUT
    failure.billing_ambiguous = _was_sent(error)
    return failure


def _disconnected(error: Exception, _: datetime) -> ProviderError:
    sent = _was_sent(error)
    sentence = "The connection to OpenAI broke before the picture arrived." if sent else "OpenAI cannot be reached."
    failure = _failed(sentence, ErrorClass.TEMPORARY, error)
    failure.billing_ambiguous = sent
    return failure


def _was_sent(error: Exception) -> bool:
    """Whether the request may have reached OpenAI: not if there never was a connection."""
    unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
    return not isinstance(error.__cause__ or error, unsent)


def _unreadable(error: Exception, _: datetime) -> ProviderError:
    failure = unreadable_answer(f"{type(error).__name__}: {error}")
    failure.vendor_code = type(error).__name__
    return failure


def _in_stream(error: "openai.APIError", _: datetime) -> ProviderError:
    body = error.body if isinstance(error.body, Mapping) else {}
    return stream_error({"message": error.message, "code": error.code, "type": error.type, **body})


def _by_status(error: "openai.APIStatusError", now: datetime) -> ProviderError:
    status = error.status_code
    fields: dict[str, object] = dict(error.body) if isinstance(error.body, Mapping) else {}
    if not isinstance(fields.get("message"), str):
        fields["message"] = error.body if isinstance(error.body, str) else error.message
    known = _by_code(_codes(fields) & (POLICY_CODES | QUOTA_CODES), fields)
    failure = _in_their_words(known or _plain_status(status, fields), fields)
    failure.vendor_code = failure.vendor_code or str(status)
    if failure.retryable:
        failure.retry_after_s = parse_retry_after(error.response.headers, now)
        failure.billing_ambiguous = status in GATEWAY_LOST
    return failure


_STATUSES: Mapping[int, tuple[str, ErrorClass, ErrorKind | None]] = {
    401: ("OpenAI does not accept the API key.", ErrorClass.AUTH_ERROR, None),
    403: ("OpenAI does not allow this account to make the picture.", ErrorClass.AUTH_ERROR, None),
    404: ("OpenAI does not know this model or address.", ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST),
    408: ("OpenAI failed to answer (408).", ErrorClass.TEMPORARY, None),
    409: ("OpenAI failed to answer (409).", ErrorClass.TEMPORARY, None),
    413: ("The pictures are too large for OpenAI.", ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST),
    429: ("OpenAI asks us to slow down.", ErrorClass.RATE_LIMIT, None),
}


def _plain_status(status: int, fields: Mapping[str, object]) -> ProviderError:
    """What a status means where the code in the body says nothing more."""
    if status in _STATUSES:
        return ProviderError(*_STATUSES[status])
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR or status < httpx2.codes.BAD_REQUEST:
        return ProviderError(f"OpenAI failed to answer ({status}).", ErrorClass.TEMPORARY)
    return _not_accepted(fields)


def _by_code(codes: frozenset[str], fields: Mapping[str, object]) -> ProviderError | None:
    if codes & POLICY_CODES:
        return ProviderError(_policy_sentence(fields), ErrorClass.PERMANENT, ErrorKind.POLICY)
    if codes & QUOTA_CODES:
        return ProviderError("The OpenAI account has no credit left.", ErrorClass.PERMANENT, ErrorKind.QUOTA)
    if codes & RATE_CODES:
        return ProviderError(*_STATUSES[429])
    if codes & KEY_CODES:
        return ProviderError(*_STATUSES[401])
    return _not_accepted(fields) if codes & REQUEST_CODES else None


def _not_accepted(fields: Mapping[str, object]) -> ProviderError:
    sentence = f"OpenAI did not accept this request{_quoted(fields)}."
    return ProviderError(sentence, ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST)


def _in_their_words(failure: ProviderError, fields: Mapping[str, object]) -> ProviderError:
    failure.vendor_code = _vendor_code(fields)
    failure.vendor_message = _vendor_message(fields)
    return failure


def _policy_sentence(fields: Mapping[str, object]) -> str:
    details = fields.get("moderation_details")
    details = details if isinstance(details, Mapping) else {}
    named = details.get("categories")
    categories = [str(each) for each in named] if isinstance(named, list) else _listed(str(fields.get("message")))
    reason = f": {', '.join(each.replace('_', ' ').replace('/', ', ') for each in categories)}" if categories else ""
    if details.get("moderation_stage") == "output":
        return f"OpenAI withheld the picture it made{reason}. Change the prompt and try again."
    return f"OpenAI refused this prompt{reason}. Change it and try again."


def _listed(message: str) -> list[str]:
    """The categories OpenAI's older answers name at the end of the text: "safety_violations=[sexual]"."""
    match = re.search(r"safety_violations=\[([\w\s,/-]*)\]", message)
    return [part.strip() for part in match[1].split(",") if part.strip()] if match else []


def _codes(fields: Mapping[str, object]) -> frozenset[str]:
    return frozenset(str(fields[key]) for key in ("code", "type") if fields.get(key))


def _vendor_code(fields: Mapping[str, object]) -> str | None:
    return next((str(fields[key]) for key in ("code", "type") if fields.get(key)), None)


def _vendor_message(fields: Mapping[str, object]) -> str | None:
    message = fields.get("message")
    return message[:MAX_VENDOR_CHARS] if isinstance(message, str) and message else None


def _quoted(fields: Mapping[str, object]) -> str:
    """OpenAI's own words, as the end of a sentence; a page of HTML is not quoted."""
    message = (_vendor_message(fields) or "").strip().rstrip(".")
    if not message or message.startswith("<"):
        return ""
    shortened = message if len(message) <= MAX_QUOTED_CHARS else message[: MAX_QUOTED_CHARS - 1] + "\u2026"
    return f": {shortened}"


def _failed(sentence: str, error_class: ErrorClass, error: Exception) -> ProviderError:
    return ProviderError(
        sentence, error_class, vendor_code=type(error).__name__, vendor_message=str(error)[:MAX_VENDOR_CHARS] or None
    )


def _filtered(error: Exception, _: datetime) -> ProviderError:
    failure = _failed("OpenAI refused this prompt. Change it and try again.", ErrorClass.PERMANENT, error)
    failure.kind = ErrorKind.POLICY
    return failure


def _forged(error: Exception, _: datetime) -> ProviderError:
    return _failed("A message that claims to come from OpenAI is not signed by it.", ErrorClass.AUTH_ERROR, error)


def _misused(error: Exception, _: datetime) -> ProviderError:
    return _failed("The request to OpenAI could not be made.", ErrorClass.PERMANENT, error)


@functools.cache
def mappers() -> tuple[tuple[type[Exception], Mapper], ...]:
    """Exception classes and what each means for us, most specific first."""
    import openai

    return (
        (openai.APITimeoutError, _timed_out),
        (openai.APIConnectionError, _disconnected),
        (openai.APIResponseValidationError, _unreadable),
        (openai.APIStatusError, _by_status),
        (openai.APIError, _in_stream),
        (openai.ContentFilterFinishReasonError, _filtered),
        (openai.LengthFinishReasonError, _unreadable),
        (openai.WebSocketConnectionClosedError, _disconnected),
        (openai.WebSocketQueueFullError, _disconnected),
        (openai.OpenAIError, _misused),
        (openai.InvalidWebhookSignatureError, _forged),
        (httpx2.TimeoutException, _timed_out),
        (httpx2.HTTPError, _disconnected),
        # JSON, UTF-8 and pydantic errors of an answer that came through whole are all ValueErrors.
        (ValueError, _unreadable),
        (OSError, _disconnected),
    )
