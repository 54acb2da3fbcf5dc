"""Public keys that makers publish (JWKS, RFC 7517): read rarely, kept, and read again when an unknown one is named."""

import asyncio
import base64
import binascii
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from providers.errors import KeysAway
from providers.http import create_client

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 64 * 1024
MAX_KEYS: Final = 32
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192

PublicKey: TypeAlias = Ed25519PublicKey | RSAPublicKey


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key and its id, where it has one."""

    kid: str | None
    key: PublicKey


@dataclass(frozen=True, slots=True)
class Freshness:
    """How often keys are read (seconds).

    Attributes:
        keep_s: They are read again after so long.
        pause_s: Never more often than that, however many unknown keys are named.
        retry_s: Nor, after a failure, than that.
        limit_s: Time one reading may take.

    """

    keep_s: float = 6 * 3600.0
    pause_s: float = 60.0
    retry_s: float = 5.0
    limit_s: float = 5.0


class KeyRing:
    """The keys at one address, which is followed nowhere else.

    Args:
        url: Where the maker publishes them.
        freshness: How often they are read.
        clock: Seconds, monotonic.

    """

    def __init__(
        self, url: str, freshness: Freshness | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = url
        self._freshness = freshness or Freshness()
        self._clock = clock
        self._keys: tuple[NamedKey, ...] = ()
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._failed = False
        self._lock = asyncio.Lock()

    async def named(self, kid: str | None) -> Sequence[PublicKey]:
        """The keys with this id, or all of them where none is named; unknown ids have the keys read again.

        Raises:
            KeysAway: They cannot be read, so nothing can be said.

        """
        if self._read_at is None or self._clock() - self._read_at > self._freshness.keep_s:
            await self._refresh(needed=self._read_at is None)
        found = self._find(kid)
        if not found and kid is not None:
            return await self.again(kid)
        return found

    async def again(self, kid: str | None) -> Sequence[PublicKey]:
        """The keys after another reading, unless the last was a moment ago; for a call that none of them has signed.

        Raises:
            KeysAway: The maker may have changed its keys, and does not answer.

        """
        await self._refresh(needed=True)
        return self._find(kid)

    def _find(self, kid: str | None) -> list[PublicKey]:
        return [named.key for named in self._keys if kid is None or named.kid == kid]

    async def _refresh(self, *, needed: bool) -> None:
        async with self._lock:
            wait_s = self._freshness.retry_s if self._failed else self._freshness.pause_s
            if self._tried_at is None or self._clock() - self._tried_at >= wait_s:
                await self._read()
        if self._failed and needed:
            raise KeysAway(self.url)

    async def _read(self) -> None:
        self._tried_at = self._clock()
        try:
            async with asyncio.timeout(self._freshness.limit_s), create_client(self._freshness.limit_s) as client:
                keys = parse_keys(await _download(client, self.url))
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError, ValueError, RecursionError) as error:
            self._failed = True
            facts = {"action": "keys_away", "url": self.url, "reason": type(error).__name__}
            logger.warning("the keys of a maker cannot be read", extra=facts)
            return
        self._failed = False
        self._keys, self._read_at = keys, self._tried_at


async def _download(client: httpx2.AsyncClient, url: str) -> bytes:
    async with client.stream("GET", url, headers={"accept": "application/json"}) as response:
        if response.status_code != httpx2.codes.OK:
            raise ValueError(f"status {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_bytes(8192):
            body += chunk
            if len(body) > MAX_BYTES:
                raise ValueError("too long")
    return bytes(body)


def parse_keys(body: bytes) -> tuple[NamedKey, ...]:
    """The keys of a set that can be used; others are left out. Pure.

    Raises:
        ValueError: It is no key set, or there is none.

    """
    value = json.loads(body)
    entries = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no key set")  # noqa: TRY004 - what came is wrong, not a caller
    keys = (_parsed(entry) for entry in entries[:MAX_KEYS] if isinstance(entry, dict))
    usable = tuple(key for key in keys if key is not None)
    if not usable:
        raise ValueError("no key that can be used")
    return usable


def _parsed(entry: Mapping[str, Any]) -> NamedKey | None:
    kid = entry.get("kid")
    try:
        match entry.get("kty"), entry.get("crv"):
            case "OKP", "Ed25519":
                key: PublicKey = Ed25519PublicKey.from_public_bytes(_bytes(entry["x"]))
            case "RSA", _:
                modulus = int.from_bytes(_bytes(entry["n"]))
                if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
                    return None
                key = RSAPublicNumbers(int.from_bytes(_bytes(entry["e"])), modulus).public_key()
            case _:
                return None
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    return NamedKey(kid if isinstance(kid, str) else None, key)


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
