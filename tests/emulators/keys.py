"""A maker's published keys on loopback (JWKS), and what can be wrong with them."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from tests.emulators.http import Exchange, HttpEmulator, Received


@dataclass
class KeyServer(HttpEmulator):
    """Serves `entries` at /jwks.json; `status` and `misbehave` change the answer."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    misbehave: str = ""

    @property
    def url(self) -> str:
        return f"{self.origin}/jwks.json"

    async def handle(self, request: Received, exchange: Exchange) -> None:
        match self.misbehave:
            case "redirect":
                await exchange.answer(302, b"", {"location": f"{self.origin}/elsewhere"})
            case "endless":
                await exchange.start(200, {"content-type": "application/json"})
            case "large":
                await exchange.answer(200, b" " * 200_000 + json.dumps({"keys": self.entries}).encode())
            case "html":
                await exchange.answer(200, b"<html></html>", {"content-type": "text/html"})
            case "empty":
                await exchange.answer(200, {"keys": []})
            case _:
                await exchange.answer(self.status, {"keys": self.entries})


def ed25519_entry(kid: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """A key as makers publish it."""
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": _text(key.public_key().public_bytes_raw())}


def rsa_entry(kid: str, key: RSAPrivateKey) -> dict[str, Any]:
    """A key as makers publish it."""
    numbers = key.public_key().public_numbers()
    modulus, exponent = (_text(each.to_bytes((each.bit_length() + 7) // 8)) for each in (numbers.n, numbers.e))
    return {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": modulus, "e": exponent}


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
