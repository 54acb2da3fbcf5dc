"""The canvas page and its assets, from the wheel or from a checkout."""

import hashlib
import html
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from server.access import Role
from server.door import workflow_id_of
from server.errors import Forbidden, Unauthenticated
from server.files import IMMUTABLE, file_answer
from server.operations import Answer, Operation
from server.routes.workflows import make_workflow
from server.services import services_of

_SERVER: Final = Path(__file__).parent.parent
PLACES: Final = (_SERVER / "page", _SERVER.parent / "static" / "dist")
"""Where the built page may lie: inside the installed package, or in a checkout."""
_HTML: Final = "text/html; charset=utf-8"
_ENCODINGS: Final = (("br", ".br"), ("gzip", ".gz"))

_MISSING: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Darkroom: the page is not built</title>
<style>body{{font:16px/1.5 system-ui;max-width:40rem;margin:15vh auto;padding:0 1rem;background:#161413;color:#e8e2da}}
code{{background:#2a2624;padding:.1em .35em;border-radius:.25em}}</style>
<h1>The page is not built</h1>
<p>The server runs, but the canvas page is not in this installation. In a checkout, build it with</p>
<p><code>python3 dev.py run</code></p>
<p>or without the helper: <code>cd static &amp;&amp; npm ci &amp;&amp; npm run build</code>,
then load this page again.</p>
<p>The API works meanwhile: <a style="color:#e0a458" href="{api}">{api}</a>.</p></html>
"""


def find_page() -> Path | None:
    """The folder of the built page; None when it is not built."""
    return next((place for place in PLACES if (place / "index.html").is_file()), None)


async def open_new(request: Request) -> Response:
    """Make a workflow and go there; a look without a visit (HEAD, a browser's guess) makes none."""
    no_store = {"cache-control": "no-store"}
    if request.method == "HEAD":
        return Response(media_type=_HTML, headers=no_store)
    if "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", "")):
        return Response(status_code=503, headers=no_store)
    workflow_id = await make_workflow(services_of(request))
    token = request.query_params.get("token")
    # Behind the "#" it stays in the browser: no server, proxy or log sees it.
    mine = f"#token={quote(token, safe='')}" if token else ""
    return RedirectResponse(f"/w/{workflow_id}{mine}", 303, headers=no_store)


async def open_door(request: Request, error: Unauthenticated | Forbidden) -> Response:
    """Show a person whom nothing lets in where to put a link; the page reads from its address what it is to show."""
    missing = isinstance(error, Unauthenticated)
    headers = {"cache-control": "no-store", "referrer-policy": "same-origin"}
    if missing:
        headers["www-authenticate"] = 'Bearer realm="darkroom"'
    folder: Path | None = request.app.state.page or find_page()
    if folder is None:
        return _missing()
    content = await anyio.to_thread.run_sync((folder / "index.html").read_bytes)
    return HTMLResponse(content, 401 if missing else 403, headers)


async def open_workflow(request: Request) -> Response:
    """Serve the canvas page of a workflow."""
    workflow_id_of(request)
    folder: Path | None = request.app.state.page or find_page()
    if folder is None:
        return _missing()
    content = await anyio.to_thread.run_sync((folder / "index.html").read_bytes)
    # By content: times of files say little inside packages, and a stale page asks for parts that are gone.
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"cache-control": "no-cache", "etag": tag, "referrer-policy": "same-origin"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return HTMLResponse(content, headers=headers)


async def read_asset(request: Request) -> Response:
    """Serve a part of the page; its name changes with its content."""
    return await _part(request, Path("assets") / request.path_params["path"], IMMUTABLE)


async def read_public(request: Request) -> Response:
    """Serve a file that lies beside the page, such as its icon."""
    return await _part(request, Path(request.path_params["name"]), "public, max-age=3600")


async def _part(request: Request, relative: Path, caching: str) -> Response:
    folder: Path | None = request.app.state.page or find_page()
    if folder is None or relative.is_absolute() or ".." in relative.parts or relative.name == "index.html":
        raise HTTPException(404)
    path = folder / relative
    headers = {"cache-control": caching, "vary": "accept-encoding"}
    accepted = request.headers.get("accept-encoding", "")
    media_type = _media_type(relative)
    for encoding, suffix in _ENCODINGS:
        if encoding in accepted:
            packed = path.with_name(path.name + suffix)
            answer = await file_answer(request, packed, {**headers, "content-encoding": encoding}, media_type)
            if answer is not None:
                return answer
    answer = await file_answer(request, path, headers, media_type)
    if answer is None:
        raise HTTPException(404)
    return answer


def _missing() -> Response:
    return HTMLResponse(_MISSING.format(api=html.escape("/openapi.json")), 503, {"cache-control": "no-store"})


def _media_type(path: Path) -> str | None:
    """Types that some systems' tables get wrong, and browsers insist on."""
    return {
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".svg": "image/svg+xml",
        ".woff2": "font/woff2",
        ".webmanifest": "application/manifest+json",
        ".map": "application/json",
    }.get(path.suffix)


OPERATIONS = (
    Operation(
        "GET",
        "/",
        open_new,
        "Make a workflow and go there",
        "page",
        {303: Answer("The new workflow's page."), 503: Answer("A browser only guessed that somebody may come.")},
        role=Role.EDITOR,
        everywhere=True,
        door=open_door,
    ),
    Operation(
        "GET",
        "/w/{workflow_id}",
        open_workflow,
        "The canvas page",
        "page",
        {
            200: Answer("The page.", media_type="text/html"),
            503: Answer("The page is not built.", media_type="text/html"),
        },
        problems=(404,),
        public=True,
    ),
    Operation(
        "GET",
        "/assets/{path:path}",
        read_asset,
        "A part of the page",
        "page",
        {200: Answer("The file."), 304: Answer("The copy the client has is good.")},
        problems=(404,),
        public=True,
    ),
    Operation(
        "GET",
        "/{name}",
        read_public,
        "A file beside the page",
        "page",
        {200: Answer("The file."), 304: Answer("The copy the client has is good.")},
        problems=(404,),
        public=True,
    ),
)
