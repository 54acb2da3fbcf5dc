"""Calls of makers: what they say, and how each maker signs them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, runtime_checkable

from providers.base import Finished, Waiting
from providers.errors import ProviderError
from providers.json import Json
from providers.signatures import Ed25519Headers

MAX_STATE_CHARS: Final = 100
MAX_REMOTE_ID_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Heard:
    """
    What a maker says in a call.

    Attributes:
        delivery_id: The maker's own id of the call, where it has one besides the signed one.
        remote_id: Which of its jobs it speaks of; None where only the address of the call tells.
        state: In its words, such as "response.completed".
        answer: What became of the job; None where it has to be asked.
    """

    delivery_id: str | None
    remote_id: str | None
    state: str
    answer: Finished | Waiting | ProviderError | None = None


@dataclass(frozen=True, slots=True)
class Standard:
    """Standard Webhooks with a secret."""


@dataclass(frozen=True, slots=True)
class Hmac:
    """HMAC-SHA256 in hex with a secret, in one of these headers."""

    headers: tuple[str, ...] = ("x-signature", "x-hub-signature-256", "x-webhook-signature")
    timestamped: bool = False


@dataclass(frozen=True, slots=True)
class Ed25519:
    """
    Ed25519 with keys the maker publishes.

    It signs for all its customers with the same keys: only the token in the address tells that a call is about our run.
    """

    keys_url: str
    names: Ed25519Headers
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Jwt:
    """RS256 JWT with keys the maker publishes, in this header. As with `Ed25519`, the address needs the token."""

    keys_url: str
    header: str = "webhook-signature"


@dataclass(frozen=True, slots=True)
class Token:
    """Nothing is signed: the token in the address is all there is, so what is said is a hint to go and ask."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Several ways, the first that the call's headers fit."""

    schemes: tuple[Standard | Hmac | Ed25519 | Jwt | Token, ...]


WebhookScheme: TypeAlias = Standard | Hmac | Ed25519 | Jwt | Token | AnyOf

GENERIC: Final = AnyOf((Standard(), Hmac()))
"""Of whoever has a secret and no scheme of its own."""

SCHEMES: Final[Mapping[str, WebhookScheme]] = {
    "openai": Standard(),
    "replicate": Standard(),
    # Registered webhooks are signed with a secret, those named in a request with a JWT.
    "google": AnyOf((Standard(), Jwt("https://generativelanguage.googleapis.com/.well-known/jwks.json"))),
    "fal": Ed25519(
        "https://rest.fal.ai/.well-known/jwks.json",
        Ed25519Headers(
            "x-fal-webhook-request-id", "x-fal-webhook-user-id", "x-fal-webhook-timestamp", "x-fal-webhook-signature"
        ),
    ),
    "ideogram": Ed25519(
        "https://api.ideogram.ai/v1/.well-known/jwks.json",
        Ed25519Headers(
            "x-ideogram-webhook-generation-id",
            "x-ideogram-webhook-user-id",
            "x-ideogram-webhook-timestamp",
            "x-ideogram-webhook-signature",
            "x-ideogram-webhook-key-id",
        ),
    ),
    "midjourney": Token(),
    "nanobanana": Token(),
}
"""How makers sign, by their names, as of 2026-11."""


@runtime_checkable
class HearsWebhooks(Protocol):
    """A maker that calls back. `webhook` says how its calls are verified."""

    webhook: WebhookScheme

    def heard(self, payload: Mapping[str, Json], headers: Mapping[str, str]) -> Heard:
        """
        What a call says; it is genuine, but may be of any kind and shape.

        Args:
            payload: The body.
            headers: Names in lower case.
        """


def believed(scheme: WebhookScheme) -> bool:
    """Whether what a call says is signed, or only that somebody knows the address."""
    return not isinstance(scheme, Token)


def heard_anyhow(payload: Mapping[str, Json], headers: Mapping[str, str]) -> Heard:
    """What a call of a maker without rules of its own seems to be about."""
    inner = payload.get("data")
    places = (inner, payload) if isinstance(inner, Mapping) else (payload,)
    remote_id = next((found for place in places if (found := _id_of(place)) is not None), None)
    state = next((str(payload[name]) for name in ("type", "status", "state") if payload.get(name)), "unknown")
    return Heard(headers.get("webhook-id"), remote_id, state)


def _id_of(place: Mapping[str, Json]) -> str | None:
    for name in ("id", "request_id", "generation_id", "taskId", "task_id"):
        value = place.get(name)
        if isinstance(value, str) and value:
            return value[:MAX_REMOTE_ID_CHARS]
    return None
