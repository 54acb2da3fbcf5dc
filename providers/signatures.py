"""How calls of makers prove where they come from: over the bytes as they came, in constant time. Pure.

Every check answers a `Proof` or raises `BadSignature`, which says no more. Nothing of a body is parsed before.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from providers.errors import BadSignature
from providers.json import Json

TOLERANCE_S: Final = 300
"""How far the time of a call may lie from ours, both ways."""
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix
MAX_SIGNATURES: Final = 20
MAX_ID_CHARS: Final = 200
MAX_TOKEN_CHARS: Final = 8_192
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,200}")
"""Visible ASCII without the dot: it parts id, time and body in what is signed."""
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_HEX = re.compile(r"[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Proof:
    """What a good signature vouches for.

    Attributes:
        delivery_id: The same for every repetition of this call, and no other call's.
        claims: The event itself, where not the body was signed but a token that holds it.

    """

    delivery_id: str
    claims: Mapping[str, Json] | None = None


def signing_keys(secret: str) -> tuple[bytes, ...]:
    """
    The keys a secret may stand for.

    `whsec_` is followed by base64. Without it libraries differ: some take the text as it stands, others decode it.

    Raises:
        ValueError: It is empty, or what follows `whsec_` is not base64.
    """
    secret = secret.strip()
    if secret.startswith(SECRET_PREFIX):
        key = _base64(secret.removeprefix(SECRET_PREFIX))
        if not key:
            raise ValueError(f"what follows {SECRET_PREFIX} must be base64")
        return (key,)
    if not secret:
        raise ValueError("must not be empty")
    decoded = _base64(secret)
    return (secret.encode(), decoded) if decoded else (secret.encode(),)


def verify_standard(headers: Mapping[str, str], body: bytes, keys: Iterable[bytes], now: float) -> Proof:
    """
    Standard Webhooks, symmetric (`v1`): one good signature of any key is enough.

    Args:
        headers: Names in lower case.
        body: As it was received.
        keys: Of every secret that counts now; more than one while a secret is being changed.
        now: Unix seconds.

    Raises:
        BadSignature: Not signed by any of the keys, or not now.
    """
    prefix = "webhook" if "webhook-id" in headers else "svix"
    delivery_id = headers.get(f"{prefix}-id", "")
    timestamp = headers.get(f"{prefix}-timestamp", "")
    if _ID.fullmatch(delivery_id) is None:
        raise BadSignature
    _check_time(timestamp, now)
    given = [_base64(each[3:]) for each in _listed(headers.get(f"{prefix}-signature", "")) if each.startswith("v1,")]
    signed = f"{delivery_id}.{timestamp}.".encode("ascii") + body
    _match([_hmac(key, signed) for key in keys], given)
    return Proof(delivery_id)


def verify_hmac(header: str, body: bytes, keys: Iterable[bytes], now: float, *, timestamped: bool = False) -> Proof:
    """
    HMAC-SHA256 in hex over the body: `<hex>`, `sha256=<hex>`, or with a time `t=<seconds>,v1=<hex>` over `t.body`.

    Without a time nothing tells an old call from a new one, so the body is its id: a repetition is the same call.

    Args:
        header: The header that holds it.
        body: As it was received.
        keys: Of every secret that counts now.
        now: Unix seconds.
        timestamped: Whether one without a time is refused.

    Raises:
        BadSignature: Not signed by any of the keys, or not now.
    """
    times, hexes = _hmac_parts(header)
    if timestamped and not times:
        raise BadSignature
    signed = body
    if times:
        if len(times) != 1:
            raise BadSignature
        _check_time(times[0], now)
        signed = times[0].encode("ascii") + b"." + body
    given = [bytes.fromhex(each) for each in hexes if len(each) == 2 * hashlib.sha256().digest_size]
    _match([_hmac(key, signed) for key in keys], given)
    return Proof(hashlib.sha256(signed).hexdigest())


def verify_ed25519(
    headers: Mapping[str, str], body: bytes, names: "Ed25519Headers", keys: Sequence[Ed25519PublicKey], now: float
) -> Proof:
    """
    Ed25519 over id, user, time and the SHA-256 of the body, joined by newlines, as fal and Ideogram sign.

    Args:
        headers: Names in lower case.
        body: As it was received.
        names: The maker's names for them.
        keys: Of the maker.
        now: Unix seconds.

    Raises:
        BadSignature: Not signed by any of the keys, or not now.
    """
    request_id, user_id = headers.get(names.request_id, ""), headers.get(names.user_id, "")
    timestamp, signature = headers.get(names.timestamp, ""), headers.get(names.signature, "")
    if _ID.fullmatch(request_id) is None or len(user_id) > MAX_ID_CHARS or "\n" in user_id:
        raise BadSignature
    _check_time(timestamp, now)
    if _HEX.fullmatch(signature) is None or len(signature) != 128:  # noqa: PLR2004 - 64 bytes as hex
        raise BadSignature
    digest = hashlib.sha256(body).hexdigest()
    message = f"{request_id}\n{user_id}\n{timestamp}\n{digest}".encode()
    raw = bytes.fromhex(signature)
    if not any(_signed_by(key, raw, message) for key in keys):
        raise BadSignature
    # One request may be told of twice, with another result: what was said belongs to the id.
    return Proof(f"{request_id}:{digest[:32]}")


@dataclass(frozen=True, slots=True)
class Ed25519Headers:
    """The names of a maker's headers, in lower case; `key_id` where it says which key it used."""

    request_id: str
    user_id: str
    timestamp: str
    signature: str
    key_id: str | None = None


def key_id_of_jwt(token: str) -> str:
    """
    Which key a JWT says it was signed with; nothing about it is believed yet.

    Raises:
        BadSignature: It is no RS256 JWT, or names no key.
    """
    if not token or len(token) > MAX_TOKEN_CHARS:
        raise BadSignature
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError) as error:
        raise BadSignature from error
    kid = header.get("kid")
    if header.get("alg") != "RS256" or not isinstance(kid, str) or not 0 < len(kid) <= MAX_ID_CHARS:
        raise BadSignature
    return kid


def verify_jwt(token: str, keys: Sequence[RSAPublicKey], audiences: Sequence[str], now: float) -> Proof:
    """
    An RS256 JWT (RFC 7519) for one of the audiences, not yet expired and not older than `TOLERANCE_S`.

    What it says counts and the body does not: nothing tells that the signature covers the body.

    Args:
        token: As it came.
        keys: Those with the key id it names.
        audiences: What `aud` may be.
        now: Unix seconds.

    Raises:
        BadSignature: Anything else.
    """
    for key in keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=list(audiences),
                options={
                    "require": ["exp", "aud"],
                    # Against `now`, further down: the library would look at the clock.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        _check_claims(claims, now)
        return Proof(hashlib.sha256(token.encode()).hexdigest(), claims)
    raise BadSignature


def same_token(given: str, known: str) -> bool:
    """Whether two tokens are equal, in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), known.encode("utf-8", "replace"))


def _check_claims(claims: Mapping[str, Any], now: float) -> None:
    times = {name: claims.get(name) for name in ("exp", "nbf", "iat")}
    for value in times.values():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadSignature
    if times["exp"] is None or not now < times["exp"]:
        raise BadSignature
    if times["nbf"] is not None and times["nbf"] > now + TOLERANCE_S:
        raise BadSignature
    if times["iat"] is not None and not abs(now - times["iat"]) <= TOLERANCE_S:
        raise BadSignature


def _check_time(text: str, now: float) -> None:
    # Whole seconds only: two spellings of one time would be two signed texts.
    if _TIMESTAMP.fullmatch(text) is None or abs(now - int(text)) > TOLERANCE_S:
        raise BadSignature


def _listed(header: str) -> list[str]:
    return header.split(" ")[:MAX_SIGNATURES]


def _hmac_parts(header: str) -> tuple[list[str], list[str]]:
    """The times and the hex signatures of a header."""
    times, hexes = [], []
    for part in header.split(",")[:MAX_SIGNATURES]:
        name, given, value = part.strip().partition("=")
        if not given:
            name, value = "sha256", name
        if name == "t":
            times.append(value)
        elif name in {"sha256", "v1"} and _HEX.fullmatch(value):
            hexes.append(value)
    return times, hexes


def _match(expected: Sequence[bytes], given: Sequence[bytes | None]) -> None:
    """Compare all with all, whatever is found on the way."""
    found = False
    for one in expected:
        for other in given:
            found |= hmac.compare_digest(one, other or b"")
    if not found:
        raise BadSignature


def _hmac(key: bytes, signed: bytes) -> bytes:
    return hmac.new(key, signed, hashlib.sha256).digest()


def _signed_by(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _base64(text: str) -> bytes | None:
    """Base64, padded or not; None where it is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
