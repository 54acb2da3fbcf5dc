"""The door for calls of makers: verified over the bytes as they came, recorded, answered; the work comes afterwards."""

import hashlib
import ipaddress
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from crdt.json import Json
from crdt.values import clean_text, plain
from jobs.deliveries import Delivery, Receipt
from jobs.errors import RunNotFound
from jobs.run import Run
from jobs.runs import Runs
from jobs.trouble import log_trouble
from providers import signatures
from providers.addresses import AllowList
from providers.errors import BadSignature
from providers.jwks import KeyRing
from providers.registry import Registry
from providers.signatures import Proof, signing_keys
from providers.webhooks import (
    GENERIC,
    MAX_REMOTE_ID_CHARS,
    MAX_STATE_CHARS,
    SCHEMES,
    AnyOf,
    Ed25519,
    Heard,
    HearsWebhooks,
    Hmac,
    Jwt,
    Standard,
    Token,
    WebhookScheme,
    heard_anyhow,
)
from server.errors import InvalidJson, UnsupportedMediaType

logger = logging.getLogger(__name__)

PATH: Final = "/webhooks/"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_KEPT_HEADERS: Final = 10
_SECRET_HEADERS: Final = re.compile(r"signature|authorization|cookie|token|secret|forwarded|real-ip")
_LOCAL: Final = (".local", ".internal", ".localhost", ".lan", ".test")


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets that calls are signed with.

    Attributes:
        own: Of each maker, by its name.
        shared: Of every maker that has none of its own.

    """

    own: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shared: Sequence[str] = ()

    def of(self, provider: str) -> Sequence[str]:
        """Those of one maker; more than one while its secret is being changed."""
        return self.own.get(provider) or self.shared


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it came; header names are lower case, `run_id` and `token` come from its address."""

    provider: str
    headers: Mapping[str, str]
    body: bytes
    run_id: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class _Trusted:
    """A call that proved where it comes from; `run` is the one whose address it knew."""

    proof: Proof
    run: Run | None


class Webhooks:
    """Verifies and records calls.

    Args:
        registry: The makers that are offered.
        runs: Where calls are recorded.
        app_url: The public address of this server.
        secrets: What calls are signed with.
        allow: Addresses that count as reachable besides public ones.
        now: Unix seconds.

    """

    def __init__(
        self,
        registry: Registry,
        runs: Runs,
        *,
        app_url: str,
        secrets: Secrets,
        allow: Sequence[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._runs = runs
        self._app_url = app_url
        self._keys = {name: _keys(secrets.of(name)) for name in (*secrets.own, "")}
        self._reachable = reachable(app_url, allow)
        self._rings = dict[str, KeyRing]()
        self._now = now

    def serves(self, provider: str) -> bool:
        """Whether calls of a maker can be verified here."""
        return _NAME.fullmatch(provider) is not None and self._can_verify(provider, self._scheme(provider))

    def address(self, run: Run) -> str | None:
        """Where the maker of a run is to call; None where it could not, or would not be believed."""
        if not self._reachable or run.webhook_token is None or not self.serves(run.provider):
            return None
        query = urlencode({"run": run.id, "token": run.webhook_token})
        return f"{self._app_url}{PATH}{quote(run.provider)}?{query}"

    async def receive(self, call: Call) -> Receipt:
        """Verify a call and commit that it came.

        Raises:
            BadSignature: It does not prove where it comes from; nothing was written.
            KeysAway: The keys of its maker cannot be read now.
            InvalidJson, UnsupportedMediaType: It is genuine, and no JSON object.

        """
        trusted = await self._verify(self._scheme(call.provider), call)
        payload = trusted.proof.claims if trusted.proof.claims is not None else _parsed(call)
        heard = self._understood(call, payload)
        delivery = Delivery(
            provider=call.provider,
            id=trusted.proof.delivery_id,
            remote_id=_bounded(heard.remote_id, MAX_REMOTE_ID_CHARS),
            run_id=None if trusted.run is None else trusted.run.id,
            state=_bounded(heard.state, MAX_STATE_CHARS) or "unknown",
            payload=payload,
            headers=_told(call.headers),
        )
        receipt = await self._runs.hear(delivery)
        facts = {"action": "webhook_received", "provider": call.provider, "fate": receipt.fate.value}
        logger.info("webhook received", extra=facts | ({"run_id": receipt.run.id} if receipt.run else {}))
        return receipt

    def _scheme(self, provider: str) -> WebhookScheme:
        maker = self._maker(provider)
        return SCHEMES.get(provider, GENERIC) if maker is None else maker.webhook

    def _maker(self, provider: str) -> HearsWebhooks | None:
        """The maker of that name, if it calls."""
        makers = (maker for maker in self._registry.providers if maker.name == provider)
        return next((maker for maker in makers if isinstance(maker, HearsWebhooks)), None)

    def _can_verify(self, provider: str, scheme: WebhookScheme) -> bool:
        match scheme:
            case AnyOf(schemes):
                return any(self._can_verify(provider, each) for each in schemes)
            case Standard() | Hmac():
                return bool(self._signing(provider))
        # Without a secret a call says only that it is about a run of ours: there has to be a maker that may have one.
        return self._maker(provider) is not None

    def _signing(self, provider: str) -> Sequence[bytes]:
        return self._keys.get(provider) or self._keys[""]

    async def _verify(self, scheme: WebhookScheme, call: Call) -> _Trusted:
        match scheme:
            case AnyOf(schemes):
                fitting = next((each for each in schemes if _fits(each, call)), None)
                if fitting is None:
                    raise BadSignature
                return await self._verify(fitting, call)
            case Standard():
                proof = signatures.verify_standard(call.headers, call.body, self._signing(call.provider), self._now())
                return _Trusted(proof, await self._known_run(call))
            case Hmac(names, timestamped):
                given = next((call.headers[name] for name in names if name in call.headers), "")
                keys = self._signing(call.provider)
                proof = signatures.verify_hmac(given, call.body, keys, self._now(), timestamped=timestamped)
                return _Trusted(proof, await self._known_run(call))
            case Ed25519():
                proof = await self._verify_ed25519(scheme, call)
            case Jwt():
                proof = await self._verify_jwt(scheme, call)
            case Token():
                proof = Proof(hashlib.sha256(f"{call.run_id}:".encode() + call.body).hexdigest())
        run = await self._known_run(call)
        if run is None:
            raise BadSignature
        return _Trusted(proof, run)

    async def _verify_ed25519(self, scheme: Ed25519, call: Call) -> Proof:
        if not call.headers.get(scheme.names.signature):
            raise BadSignature
        if scheme.user_id is not None and call.headers.get(scheme.names.user_id) != scheme.user_id:
            raise BadSignature
        kid = call.headers.get(scheme.names.key_id) if scheme.names.key_id is not None else None
        ring = self._ring(scheme.keys_url)
        try:
            return self._ed25519(scheme, call, await ring.named(kid))
        except BadSignature:
            # A maker that does not say which key it used may have changed its keys.
            return self._ed25519(scheme, call, await ring.again(kid))

    def _ed25519(self, scheme: Ed25519, call: Call, keys: Sequence[object]) -> Proof:
        fitting = [key for key in keys if isinstance(key, Ed25519PublicKey)]
        return signatures.verify_ed25519(call.headers, call.body, scheme.names, fitting, self._now())

    async def _verify_jwt(self, scheme: Jwt, call: Call) -> Proof:
        token = call.headers.get(scheme.header, "")
        kid = signatures.key_id_of_jwt(token)
        keys = [key for key in await self._ring(scheme.keys_url).named(kid) if isinstance(key, RSAPublicKey)]
        address = f"{self._app_url}{PATH}{call.provider}"
        query = urlencode({"run": call.run_id, "token": call.token})
        return signatures.verify_jwt(token, keys, (self._app_url, address, f"{address}?{query}"), self._now())

    def _ring(self, url: str) -> KeyRing:
        return self._rings.setdefault(url, KeyRing(url))

    async def _known_run(self, call: Call) -> Run | None:
        """The run whose address the call knew: it names the run and proves to know its token."""
        if not call.run_id or not call.token:
            return None
        try:
            run = await self._runs.get(call.run_id[:64])
        except RunNotFound:
            return None
        known = run.webhook_token
        return run if known is not None and signatures.same_token(call.token, known) else None

    def _understood(self, call: Call, payload: Mapping[str, Json]) -> Heard:
        maker = self._maker(call.provider)
        rule = heard_anyhow if maker is None else maker.heard
        try:
            return rule(payload, call.headers)
        except Exception as error:  # noqa: BLE001 - a genuine call may have any shape; it is kept, and its run polled
            log_trouble(logger, "call_not_understood", error, provider=call.provider)
            return Heard(None, None, "unknown")


def reachable(url: str, allow: Sequence[str]) -> bool:
    """Whether a maker out on the internet can call an address, or one that is allowed by name can. Pure."""
    host = urlsplit(url).hostname or ""
    allowed = AllowList.parse(allow)
    try:
        return allowed.permits(host, ipaddress.ip_address(host))
    except ValueError:
        pass
    if host in allowed.hosts:
        return True
    return "." in host and not host.endswith(_LOCAL)


def _keys(secrets: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(key for secret in secrets for key in signing_keys(secret))


def _fits(scheme: WebhookScheme, call: Call) -> bool:
    match scheme:
        case Standard():
            return "webhook-id" in call.headers or "svix-id" in call.headers
        case Hmac(names):
            return any(name in call.headers for name in names)
        case Jwt(_, header):
            return header in call.headers
    return True


def _parsed(call: Call) -> Mapping[str, Json]:
    """The body of a genuine call.

    Raises:
        InvalidJson, UnsupportedMediaType: It is something else than a JSON object.

    """
    coding = call.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"", "identity"}:
        raise UnsupportedMediaType(f"Content-Encoding {coding[:40]}")
    try:
        value = plain(json.loads(call.body))
    except UnicodeDecodeError:
        raise InvalidJson("the body is not UTF-8") from None
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except ValueError:
        raise InvalidJson("the body is not JSON") from None
    if not isinstance(value, Mapping):
        raise InvalidJson("the body is not a JSON object")
    return value


def _bounded(text: object, limit: int) -> str | None:
    """A maker's text, fit for a column; one that is longer cannot be an id of ours."""
    if not isinstance(text, str) or not text or len(text) > limit:
        return None
    return clean_text(text)


def _told(headers: Mapping[str, str]) -> dict[str, str]:
    """The maker's own headers that may say something, and prove nothing."""
    own = {
        name: clean_text(value[:200])
        for name, value in headers.items()
        if name.startswith(("x-", "webhook-")) and _SECRET_HEADERS.search(name) is None
    }
    return dict(list(own.items())[:_KEPT_HEADERS])
