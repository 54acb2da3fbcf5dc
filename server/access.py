"""Who may do what: access tokens (HS256 JWT, RFC 7519), roles, and the workflows a token reaches."""

import datetime as dt
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import jwt
from starlette.requests import HTTPConnection, Request

from server.errors import Forbidden, NoSecret, Unauthenticated
from server.revocations import Revocations

ALGORITHM: Final = "HS256"
MAX_TOKEN_CHARS: Final = 6_000
"""It has to go into one line of a request; servers take 8 KiB."""
MAX_WORKFLOWS: Final = 200
MAX_NAME_CHARS: Final = 128
DEFAULT_LIFE_S: Final = 24 * 3600
MAX_LIFE_S: Final = 30 * 24 * 3600
LEEWAY_S: Final = 2.0
"""How far the clock of whoever signs a token may be off."""
EVERY: Final = "*"
GUEST_PREFIX: Final = "share-"
"""Begins the `sub` of whoever comes by a link."""
TOKEN_PARAMETER: Final = "token"  # noqa: S105 - a name
SUBPROTOCOL: Final = "darkroom"
_TOKEN_SUBPROTOCOL: Final = "darkroom.token."  # noqa: S105 - a prefix
_WORKFLOW_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")


class Role(Enum):
    """What a token allows; each role may do all that the ones before it may."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """Its place among the roles."""
        return list(Role).index(self)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        role: What they may do.
        workflows: Where they may do it; None everywhere.
        id: The token's `sub`; "" of somebody without a token.
        name: What to call them.
        expires_at: When the token ends (Unix seconds); None never.
        token_id: The token's `jti`; "" of one that has none.
        issued_at: When it was made (Unix seconds), if it says so.

    """

    role: Role
    workflows: frozenset[str] | None = None
    id: str = ""
    name: str = ""
    expires_at: float | None = None
    token_id: str = ""
    issued_at: float | None = None

    @property
    def is_guest(self) -> bool:
        """Whether they came by a link, which many may share."""
        return self.id.startswith(GUEST_PREFIX)

    def may(self, role: Role) -> bool:
        """Whether they may do what `role` may."""
        return self.role.rank >= role.rank

    def reaches(self, workflow_id: str) -> bool:
        """Whether they may do anything in a workflow."""
        return self.workflows is None or workflow_id in self.workflows

    def require(self, role: Role) -> None:
        """Check their role.

        Raises:
            Forbidden: It is not enough.

        """
        if not self.may(role):
            raise Forbidden(f"this needs the role {role.value}; yours is {self.role.value}")

    def require_workflow(self, workflow_id: str) -> None:
        """Check that they reach a workflow.

        Raises:
            Forbidden: They do not.

        """
        if not self.reaches(workflow_id):
            raise Forbidden(f"your token does not reach workflow {workflow_id[:140]!r}")

    def require_every_workflow(self) -> None:
        """Check that they reach every workflow, also those that are still to come.

        Raises:
            Forbidden: They do not.

        """
        if self.workflows is not None:
            raise Forbidden("this needs a token for every workflow ('*'); yours names some")

    def seconds_left(self) -> float | None:
        """Seconds until the token is no longer taken; None for ever."""
        return None if self.expires_at is None else self.expires_at + LEEWAY_S - time.time()

    @property
    def expired(self) -> bool:
        """Whether their token has ended since it was read."""
        left = self.seconds_left()
        return left is not None and left <= 0

    def person(self) -> Mapping[str, str] | None:
        """{id, name} as runs keep it; None of somebody without a token."""
        if not self.id:
            return None
        return {"id": self.id, "name": self.name} if self.name else {"id": self.id}


EVERYONE: Final = Caller(Role.EDITOR)
"""Who asks where no secret is set."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new token says."""

    role: Role
    workflows: frozenset[str] | None
    name: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token, its `jti`, and when it ends."""

    token: str
    id: str
    expires_at: dt.datetime


class Access:
    """The rule of one server about who comes in.

    Args:
        secret: Signs tokens; None lets everyone in as an editor.

    """

    def __init__(self, secret: str | None = None) -> None:
        self._key = None if secret is None else secret.encode()
        self.revocations = Revocations()

    @property
    def open(self) -> bool:
        """Whether everyone is an editor."""
        return self._key is None

    def caller(self, connection: HTTPConnection) -> Caller:
        """Who sent a request, or opens a websocket.

        Raises:
            Unauthenticated: Without a token that is good now.

        """
        return EVERYONE if self._key is None else self.read(token_of(connection))

    def read(self, token: str) -> Caller:
        """Who a token is.

        Raises:
            Unauthenticated: It is missing, broken, not signed here, too early, too late or called back.
            NoSecret: Nothing is signed here.

        """
        if not token:
            raise Unauthenticated("missing", "an access token is required: send Authorization: Bearer <token>")
        if len(token) > MAX_TOKEN_CHARS:
            raise Unauthenticated("invalid", f"the access token is longer than {MAX_TOKEN_CHARS} characters")
        try:
            claims = jwt.decode(
                token,
                self._signing_key(),
                algorithms=[ALGORITHM],
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("expired", "the access token has expired: ask for a new one") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("invalid", "the access token is not valid yet") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # Whatever else strangers can make the decoder stumble over; why it did tells them nothing they need.
            raise Unauthenticated("invalid", "the access token is not one of this server") from None
        caller = _caller(claims)
        if self.revoked(caller):
            raise Unauthenticated("revoked", "the access token was called back: ask for a new one")
        return caller

    def revoked(self, caller: Caller) -> bool:
        """Whether their token was called back since it was read."""
        return self.revocations.cover(caller.token_id, caller.id, caller.issued_at)

    def issue(self, grant: Grant, life_s: float = DEFAULT_LIFE_S) -> Issued:
        """A new token.

        Raises:
            NoSecret: Nothing is signed here.

        """
        now = time.time()
        expires_at = int(now) + int(life_s)
        claims: dict[str, Any] = {
            "sub": grant.id or f"token-{secrets.token_hex(8)}",
            "role": grant.role.value,
            "workflows": EVERY if grant.workflows is None else sorted(grant.workflows),
            # To the fraction: a person called back a moment ago may be given a new token at once.
            "iat": now,
            "jti": secrets.token_hex(16),
            "exp": expires_at,
        }
        if grant.name:
            claims["name"] = grant.name
        token = jwt.encode(claims, self._signing_key(), algorithm=ALGORITHM)
        return Issued(token, claims["jti"], dt.datetime.fromtimestamp(expires_at, dt.UTC))

    def _signing_key(self) -> bytes:
        if self._key is None:
            raise NoSecret
        return self._key


def token_of(connection: HTTPConnection) -> str:
    """The token of a request, as far as there is one: its Authorization header, a websocket subprotocol, its query."""
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    for offered in connection.scope.get("subprotocols", ()):
        if offered.startswith(_TOKEN_SUBPROTOCOL):
            return str(offered).removeprefix(_TOKEN_SUBPROTOCOL)
    return connection.query_params.get(TOKEN_PARAMETER, "")


def caller_of(request: Request) -> Caller:
    """Who sent the request, as the route table found out."""
    caller: Caller = request.state.caller
    return caller


def require_admin(request: Request) -> None:
    """Check that the caller may do what concerns everybody: an admin of every workflow, or anyone without tokens.

    Raises:
        Forbidden: They may not.

    """
    access: Access = request.app.state.access
    if not access.open:
        caller = caller_of(request)
        caller.require(Role.ADMIN)
        caller.require_every_workflow()


def _caller(claims: Mapping[str, Any]) -> Caller:
    """The claims of a token that was signed here, checked.

    Raises:
        Unauthenticated: Somebody signed something else than this server reads.

    """
    sub, name, exp = claims.get("sub"), claims.get("name", ""), claims.get("exp")
    if not isinstance(sub, str) or not 1 <= len(sub) <= MAX_NAME_CHARS:
        raise _wrong("sub", f"a text of 1 to {MAX_NAME_CHARS} characters")
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS:
        raise _wrong("name", f"a text of at most {MAX_NAME_CHARS} characters")
    if isinstance(exp, bool) or not isinstance(exp, int | float):
        raise _wrong("exp", "a number")
    role = next((role for role in Role if role.value == claims.get("role")), None)
    if role is None:
        raise _wrong("role", "viewer, editor or admin")
    jti, iat = claims.get("jti", ""), claims.get("iat")
    if not isinstance(jti, str) or len(jti) > MAX_NAME_CHARS:
        raise _wrong("jti", f"a text of at most {MAX_NAME_CHARS} characters")
    # The decoder has looked at `iat` already, if there is one.
    issued_at = float(iat) if isinstance(iat, int | float) else None
    return Caller(role, _workflows(claims.get("workflows")), sub, name, float(exp), jti, issued_at)


def _workflows(value: object) -> frozenset[str] | None:
    if value == EVERY:
        return None
    if not isinstance(value, list) or len(value) > MAX_WORKFLOWS:
        raise _wrong("workflows", f"'*' or a list of at most {MAX_WORKFLOWS} ids")
    ids = frozenset(item for item in value if isinstance(item, str) and _WORKFLOW_ID.fullmatch(item))
    if len(ids) != len(value):
        raise _wrong("workflows", "a list of different ids")
    return None if EVERY in ids else ids


def _wrong(claim: str, wanted: str) -> Unauthenticated:
    return Unauthenticated("invalid", f"the access token's {claim} must be {wanted}")
