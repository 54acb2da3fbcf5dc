"""What signs our outgoing calls: Standard Webhooks, symmetric (v1)."""

import base64
import binascii
import hashlib
import hmac
import secrets as random_secrets
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.database import insert_into
from jobs.reading import utcnow
from jobs.tables import secrets

PREFIX: Final = "whsec_"
MIN_KEY_BYTES: Final = 24
MAX_KEY_BYTES: Final = 64
_MADE_BYTES: Final = 32
_NAME: Final = "outgoing"


def read_keys(text: str) -> tuple[bytes, ...]:
    """The keys of a comma separated list of secrets; while one replaces another both sign.

    Args:
        text: "whsec_..." with base64 of 24 to 64 bytes behind it, or several of them.

    Raises:
        ValueError: It is something else; the text says what is needed and quotes nothing.

    """
    keys = tuple(_key(part.strip()) for part in text.split(",") if part.strip())
    if not keys:
        raise ValueError("name at least one secret")
    return keys


def make_secret() -> str:
    """A secret that nobody can guess."""
    return PREFIX + base64.b64encode(random_secrets.token_bytes(_MADE_BYTES)).decode()


def headers(keys: Sequence[bytes], call_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows that a call is ours, whole and fresh; pure.

    Args:
        keys: Each signs; a receiver accepts any it knows.
        call_id: The same at every try of one call.
        timestamp: Of this try, Unix seconds.
        body: As it is sent.

    Source: Standard Webhooks, "Signature scheme".

    """
    signed = b".".join((call_id.encode(), str(timestamp).encode(), body))
    marks = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return {
        "webhook-id": call_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{mark}" for mark in marks),
    }


async def stored_secret(engine: AsyncEngine) -> str:
    """The secret of this installation; made and committed by whoever needs it first, the same for every process."""
    made = {"name": _NAME, "value": make_secret(), "created_at": utcnow()}
    query = sa.select(secrets.c.value).where(secrets.c.name == _NAME)
    async with engine.begin() as connection:
        insert = insert_into(engine.dialect.name, secrets).values(**made).on_conflict_do_nothing()
        await connection.execute(insert)
        value: str = (await connection.execute(query)).scalar_one()
        return value


def _key(secret: str) -> bytes:
    if not secret.startswith(PREFIX):
        raise ValueError(f"each secret begins with {PREFIX}; make one with: darkroom webhook-secret --new")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"behind {PREFIX} stands base64") from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"behind {PREFIX} stand {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes as base64")
    return key
