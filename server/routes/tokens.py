"""Access tokens and share links, made for others; nobody can give away more than they have."""

import logging
import secrets
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.access import GUEST_PREFIX, LEEWAY_S, MAX_TOKEN_CHARS, Access, Caller, Grant, Issued, Role, caller_of
from server.door import read_body, workflow_id_of
from server.errors import FieldError, InvalidRequest, NoSecret
from server.models import RevokeBody, ShareBody, TokenBody
from server.operations import Answer, Operation
from server.records import RevocationRecord, ShareRecord, TokenRecord, iso
from server.services import services_of

logger = logging.getLogger(__name__)

_NO_STORE = {"cache-control": "no-store"}
_GUEST = "Guest"


async def create_token(request: Request) -> Response:
    """Make an access token."""
    access = _access(request)
    body = await read_body(request, TokenBody)
    caller = caller_of(request)
    # A workflow may be named before there is one: whoever opens it as an editor makes it.
    workflows = None if body.workflows == "*" else frozenset(body.workflows)
    if workflows is None:
        caller.require_every_workflow()
    for workflow_id in workflows or ():
        caller.require_workflow(workflow_id)
    grant = Grant(Role(body.role), workflows, body.name or "", body.sub or "")
    issued = access.issue(grant, body.expires_in_s)
    if len(issued.token) > MAX_TOKEN_CHARS:
        raise InvalidRequest([FieldError("workflows", "are too many for one token")])
    return JSONResponse(_told(issued), 201, _NO_STORE)


async def share_workflow(request: Request) -> Response:
    """Make a link that lets whoever has it into one workflow."""
    access = _access(request)
    workflow_id = workflow_id_of(request)
    body = await read_body(request, ShareBody)
    services = services_of(request)
    await services.require(workflow_id)
    grant = Grant(
        Role(body.role), frozenset({workflow_id}), body.name or _GUEST, id=f"{GUEST_PREFIX}{secrets.token_hex(8)}"
    )
    issued = access.issue(grant, _life_s(caller_of(request), body.expires_in_s))
    url = f"{services.app_url}/w/{quote(workflow_id, safe='')}#token={issued.token}"
    return JSONResponse({"url": url, **_told(issued)}, 201, _NO_STORE)


async def revoke_tokens(request: Request) -> Response:
    """Call tokens back: their next request, and their open websockets, are refused."""
    _access(request)
    body = await read_body(request, RevokeBody)
    revocations = services_of(request).revocations
    if body.jti is not None:
        revoked_at = await revocations.revoke("jti", body.jti)
        told = {"jti": body.jti}
    else:
        revoked_at = await revocations.revoke("sub", body.sub or "")
        told = {"sub": body.sub or ""}
    logger.info("tokens called back", extra={"action": "tokens_revoked", **told, "by": caller_of(request).id})
    return JSONResponse({**told, "revokedAt": iso(revoked_at)}, headers=_NO_STORE)


def _told(issued: Issued) -> dict[str, str]:
    return {"token": issued.token, "id": issued.id, "expiresAt": iso(issued.expires_at)}


def _life_s(caller: Caller, asked_s: int) -> float:
    """Seconds a link lasts: an editor's own time is over with their token, also under another name."""
    left_s = caller.seconds_left()
    if caller.may(Role.ADMIN) or left_s is None:
        return asked_s
    # Without the leeway, which would come anew with every link made through a link.
    return min(asked_s, max(0.0, left_s - LEEWAY_S))


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    if access.open:
        raise NoSecret
    return access


OPERATIONS = (
    Operation(
        "POST",
        "/api/tokens",
        create_token,
        "Make an access token, for at most what your own allows",
        "access",
        {201: Answer("The token; it is not kept here.", TokenRecord)},
        bodies=(TokenBody,),
        problems=(409,),
        role=Role.ADMIN,
    ),
    Operation(
        "POST",
        "/api/workflows/{workflow_id}/share",
        share_workflow,
        "Make a link into one workflow; an editor's ends with the editor's own token",
        "access",
        {201: Answer("The link and its token.", ShareRecord)},
        bodies=(ShareBody,),
        problems=(404, 409),
    ),
    Operation(
        "POST",
        "/api/tokens/revoke",
        revoke_tokens,
        "Call back one token, or every token a person was given until now",
        "access",
        {200: Answer("They are no longer taken.", RevocationRecord)},
        bodies=(RevokeBody,),
        problems=(409,),
        role=Role.ADMIN,
        everywhere=True,
    ),
)
