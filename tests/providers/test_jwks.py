import base64
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from providers.errors import KeysAway
from providers.jwks import MAX_BYTES, Freshness, KeyRing, parse_keys
from tests.emulators.keys import KeyServer, ed25519_entry, rsa_entry

KEY = ed25519.Ed25519PrivateKey.generate()


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Ring:
    """A key ring, the server it reads, and its clock."""

    server: KeyServer
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        freshness = Freshness(keep_s=3600, pause_s=60, retry_s=5, limit_s=0.5)
        self.ring = KeyRing(self.server.url, freshness, self.clock)


@pytest.fixture
async def made() -> AsyncIterator[Ring]:
    async with KeyServer(entries=[ed25519_entry("k1", KEY)]).serving() as server:
        yield Ring(server)


async def test_keys_are_read_once_and_kept(made: Ring) -> None:
    for _ in range(3):
        assert len(await made.ring.named("k1")) == 1
        assert len(await made.ring.named(None)) == 1
    assert len(made.server.journal) == 1
    made.clock.now = 3601
    await made.ring.named("k1")
    assert len(made.server.journal) == 2


async def test_an_unknown_key_has_them_read_again_at_a_bounded_rate(made: Ring) -> None:
    assert list(await made.ring.named("k2")) == []
    made.clock.now = 61
    made.server.entries.append(ed25519_entry("k2", KEY))
    assert len(await made.ring.named("k2")) == 1
    for number in range(50):
        assert list(await made.ring.named(f"forged-{number}")) == []
    assert len(made.server.journal) == 2


async def test_keys_that_cannot_be_read_are_told_and_asked_for_again_later(made: Ring) -> None:
    made.server.status = 500
    for _ in range(5):
        with pytest.raises(KeysAway):
            await made.ring.named("k1")
    assert len(made.server.journal) == 1
    made.server.status, made.clock.now = 200, 6
    assert len(await made.ring.named("k1")) == 1


async def test_known_keys_go_on_while_their_maker_is_away_and_unknown_ones_have_to_wait(made: Ring) -> None:
    await made.ring.named("k1")
    made.server.status, made.clock.now = 503, 4000
    assert len(await made.ring.named("k1")) == 1
    with pytest.raises(KeysAway):
        await made.ring.named("k2")


@pytest.mark.parametrize("what", ["redirect", "endless", "large", "html", "empty"])
async def test_what_is_no_key_set_is_not_taken_for_one(made: Ring, what: str) -> None:
    made.server.misbehave = what
    with pytest.raises(KeysAway):
        await made.ring.named("k1")
    assert {request.path for request in made.server.journal} == {"/jwks.json"}


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": 5},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": "\u00e9", "e": "AQAB"},
        {"kty": ["RSA"]},
        "text",
    ],
)
def test_a_key_that_cannot_be_used_is_left_out(entry: Any) -> None:
    assert len(parse_keys(_set([entry, ed25519_entry("k1", KEY)]))) == 1
    with pytest.raises(ValueError, match="no key"):
        parse_keys(_set([entry]))


def test_a_short_rsa_key_is_left_out() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is the point
    long = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (kept,) = parse_keys(_set([rsa_entry("short", short), rsa_entry("long", long)]))
    assert kept.kid == "long"


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"keys": {}}', b"<html>", b"\xff", b"[" * MAX_BYTES])
def test_what_is_no_json_key_set_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_keys(body)


def _set(entries: Sequence[Any]) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()


def test_an_entry_holds_the_public_key_only() -> None:
    private = base64.urlsafe_b64encode(KEY.private_bytes_raw()).decode().rstrip("=")
    assert private not in json.dumps(ed25519_entry("k1", KEY))
