"""Pictures of the local image store."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from server.errors import ImageNotFound
from server.files import IMMUTABLE, file_answer
from server.operations import Answer, Operation
from server.services import services_of

_HEADERS: Final = {
    "cache-control": IMMUTABLE,
    # Canvases of other sites draw these pictures, and read their pixels back.
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "ETag, Content-Length, Content-Range",
    "cross-origin-resource-policy": "cross-origin",
    # A picture that a browser is made to open as a page can do nothing there.
    "content-security-policy": "default-src 'none'; sandbox",
}


async def read_image(request: Request) -> Response:
    """Serve a stored picture; what a key names never changes."""
    key: str = request.path_params["key"]
    path = services_of(request).images.path(key)
    answer = await file_answer(request, path, _HEADERS)
    if answer is None:
        raise ImageNotFound(key[:300])
    return answer


OPERATIONS = (
    Operation(
        "GET",
        "/images/{key:path}",
        read_image,
        "Read a stored picture",
        "images",
        {
            200: Answer("The picture.", media_type="image/*"),
            206: Answer("The range that was asked for.", media_type="image/*"),
            304: Answer("The copy the client has is good."),
        },
        problems=(404,),
        public=True,
    ),
)
