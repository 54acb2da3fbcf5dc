"""Answers that are files: with an ETag, 304 and ranges."""

import os
import stat
import tempfile
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, Response

IMMUTABLE: Final = "public, max-age=31536000, immutable"
_KEPT: Final = frozenset({"cache-control", "etag", "expires", "vary", "access-control-allow-origin"})


async def file_answer(
    request: Request, path: Path, headers: Mapping[str, str], media_type: str | None = None
) -> Response | None:
    """The file, 304 when the client has it, None when there is no such file."""
    found = await anyio.to_thread.run_sync(_stat, path)
    if found is None:
        return None
    response = FileResponse(path, headers=headers, media_type=media_type, stat_result=found)
    response.headers["x-content-type-options"] = "nosniff"
    if not_modified(request, response):
        kept = {name: value for name, value in response.headers.items() if name in _KEPT}
        return Response(status_code=304, headers=kept)
    return response


def not_modified(request: Request, response: Response) -> bool:
    """Whether the client's copy is the same (RFC 9110 13.1.2, 13.1.3)."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        own = response.headers["etag"]
        return tags.strip() == "*" or own in {tag.strip().removeprefix("W/") for tag in tags.split(",")}
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        return parsedate_to_datetime(response.headers["last-modified"]) <= parsedate_to_datetime(since)
    except (ValueError, TypeError):
        return False


def _stat(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def probe_folder(folder: Path) -> None:
    """Write and remove a file.

    Raises:
        OSError: The folder cannot be written.

    """
    handle, name = tempfile.mkstemp(prefix=".probe-", dir=folder)
    os.close(handle)
    Path(name).unlink(missing_ok=True)
