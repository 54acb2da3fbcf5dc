"""Pictures pasted into a node as `data:` URLs: moved to the image store, as the document is no place for bytes."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from crdt.canvas import INTENT_KEY, SERVER_KEYS, TEXT_KEYS
from crdt.json import Json
from crdt.values import is_data_url
from jobs.errors import BadImage
from jobs.images import MAX_BYTES, ImageWorkshop
from jobs.storage import ImageStore, upload_key

_KEEP: Final = SERVER_KEYS | TEXT_KEYS | {INTENT_KEY}


def data_urls(data: Mapping[str, Json]) -> dict[str, Json]:
    """The keys of a node's data that hold `data:` URLs, themselves or somewhere inside."""
    return {key: value for key, value in data.items() if key not in _KEEP and _holds_one(value)}


def decode(url: str) -> bytes:
    """The bytes of a `data:` URL (RFC 2397).

    Raises:
        BadImage: They cannot be decoded, or are too many.

    """
    if len(url) > MAX_BYTES * 4 // 3 + 1024:
        raise BadImage("it is too large")
    header, _, body = url.partition(",")
    if not header.lower().rstrip().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(unquote_to_bytes(body), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImage("it is not base64") from error


async def moved(value: Json, workflow_id: str, images: ImageWorkshop, store: ImageStore) -> Json:
    """The value with every `data:` URL in it replaced by the URL of the stored picture; None where it holds none.

    Raises:
        StorageUnavailable: The store does not answer; nothing is lost, try again.

    """
    if isinstance(value, str):
        return await _stored(value, workflow_id, images, store) if is_data_url(value) else value
    if isinstance(value, Mapping):
        return {key: await moved(item, workflow_id, images, store) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [await moved(item, workflow_id, images, store) for item in value]
    return value


async def _stored(url: str, workflow_id: str, images: ImageWorkshop, store: ImageStore) -> str | None:
    try:
        data = await asyncio.to_thread(decode, url)
        picture = await images.inspect(data)
    except BadImage:
        return None
    key = upload_key(workflow_id, picture.sha256, picture.format.extension)
    return await store.put(key, data, picture.content_type)


def _holds_one(value: Json) -> bool:
    if isinstance(value, str):
        return is_data_url(value)
    if isinstance(value, Mapping):
        return any(map(_holds_one, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_one, value))
