"""Access tokens and share links, made for others; nobody can give away more than they have."""

import secrets
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.access import LEEWAY_S, MAX_TOKEN_CHARS, Access, Caller, Grant, Role, caller_of
from server.door import read_body, workflow_id_of
from server.errors import FieldError, InvalidRequest, NoSecret
from server.models import ShareBody, TokenBody
from server.operations import Answer, Operation
from server.records import ShareRecord, TokenRecord, iso
from server.services import services_of

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
    token, expires_at = access.issue(grant, body.expires_in_s)
    if len(token) > MAX_TOKEN_CHARS:
        raise InvalidRequest([FieldError("workflows", "are too many for one token")])
    return JSONResponse({"token": token, "expiresAt": iso(expires_at)}, 201, _NO_STORE)


async def share_workflow(request: Request) -> Response:
    """Make a link that lets whoever has it into one workflow."""
    access = _access(request)
    workflow_id = workflow_id_of(request)
    body = await read_body(request, ShareBody)
    services = services_of(request)
    await services.require(workflow_id)
    grant = Grant(Role(body.role), frozenset({workflow_id}), body.name or _GUEST, id=f"share-{secrets.token_hex(8)}")
    token, expires_at = access.issue(grant, _life_s(caller_of(request), body.expires_in_s))
    url = f"{services.app_url}/w/{quote(workflow_id, safe='')}#token={token}"
    answer = {"url": url, "token": token, "expiresAt": iso(expires_at)}
    return JSONResponse(answer, 201, _NO_STORE)


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
)
