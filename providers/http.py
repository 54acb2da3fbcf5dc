"""Outgoing HTTP: the client every provider uses, and the guarded download of a picture into a file."""

import asyncio
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import httpx2

from providers.addresses import AllowList
from providers.base import picture_type
from providers.errors import AddressRefused, ErrorClass, ErrorKind, ProviderError
from providers.guarded import Guard, Resolver, parse_url, resolve_host
from providers.retry_after import parse_retry_after

CONNECT_TIMEOUT_S = 10.0
MAX_REDIRECTS = 3
MAX_IMAGE_BYTES = 64 * 1024 * 1024
FETCH_TIMEOUT_S = 60.0
GONE = frozenset({403, 404, 410})
"""What picture hosts answer once a link has expired."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""Content types object stores use for anything."""

SIGNATURE_BYTES = 16
"""So much of a file tells what it is."""
WRITE_BYTES = 1024 * 1024
"""Held in memory of a download, at most; a page of the file is written at once, off the event loop."""


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The TLS settings all clients share: loading the certificate bundle takes longer than a request."""
    return httpx2.create_ssl_context()


def create_client(timeout_s: float) -> httpx2.AsyncClient:
    """
    A client that follows no redirect and reads no proxy from the environment; the caller closes it.

    Args:
        timeout_s: The longest silence between two bytes; connecting has its own, shorter limit.
    """
    timeout = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
    return httpx2.AsyncClient(verify=tls_context(), timeout=timeout, trust_env=False, follow_redirects=False)


async def fetch_image(
    url: str,
    into: Path,
    *,
    allow: Collection[str] = (),
    max_bytes: int = MAX_IMAGE_BYTES,
    timeout_s: float = FETCH_TIMEOUT_S,
    resolve: Resolver = resolve_host,
) -> None:
    """
    Download a picture from an address somebody else chose into a file; memory holds no more than `WRITE_BYTES` of it.

    The name is resolved once, every address it has is checked, and the connection goes to a checked one, so that a
    second answer of the name server cannot lead elsewhere. Redirects are followed by hand and checked the same way.

    Args:
        url: http or https.
        into: Made, or replaced; what it holds after an error is of no use.
        allow: Hosts and CIDRs that may be reached though they are not public.
        max_bytes: Counted while the body arrives, whatever the headers said.
        timeout_s: For everything together: names, redirects, body.
        resolve: How names become addresses.

    Raises:
        ProviderError: EXPIRED where the picture is gone, BAD_REQUEST where the address may not be reached or holds
            no picture, TEMPORARY where trying again may help.
        OSError: The file cannot be written.
    """
    try:
        async with asyncio.timeout(timeout_s), create_client(timeout_s) as client:
            guard = Guard(client, AllowList.parse(allow), resolve)
            await _Download(guard, max_bytes, into).follow(url)
    except TimeoutError as error:
        raise ProviderError(
            f"Downloading the picture took longer than {timeout_s:g} s.", ErrorClass.TEMPORARY, ErrorKind.TIMEOUT
        ) from error
    except AddressRefused as error:
        raise _not_asked(error) from error
    except httpx2.TimeoutException as error:
        raise ProviderError("The picture's host stopped answering.", ErrorClass.TEMPORARY, ErrorKind.TIMEOUT) from error
    except httpx2.HTTPError as error:
        raise ProviderError("The picture's host broke off the connection.", ErrorClass.TEMPORARY) from error


@dataclass(frozen=True, slots=True)
class _Download:
    guard: Guard
    max_bytes: int
    into: Path

    async def follow(self, url: str) -> None:
        current = parse_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self.guard.send("GET", current, {"accept": "image/*"})
            try:
                if response.status_code not in REDIRECTS:
                    await self._read(response)
                    return
                current = _joined(current, response.headers.get("location"))
            finally:
                await response.aclose()
        raise _refused(f"The picture's address redirects more than {MAX_REDIRECTS} times.")

    async def _read(self, response: httpx2.Response) -> None:
        _check_status(response)
        _check_headers(response, self.max_bytes)
        file = await asyncio.to_thread(self.into.open, "wb")
        try:
            await self._save(response, file)
        finally:
            await asyncio.to_thread(file.close)

    async def _save(self, response: httpx2.Response, file: BinaryIO) -> None:
        size, head, page = 0, b"", bytearray()
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > self.max_bytes:
                raise _too_large(self.max_bytes)
            page += chunk
            if not head and len(page) >= SIGNATURE_BYTES:
                # What is no picture is not downloaded to its end.
                head = bytes(page[:SIGNATURE_BYTES])
                _check_signature(head)
            if len(page) >= WRITE_BYTES:
                await asyncio.to_thread(file.write, page)
                page = bytearray()
        if not size:
            raise ProviderError("The picture's host sent an empty file.", ErrorClass.TEMPORARY)
        if not head:
            _check_signature(bytes(page))
        await asyncio.to_thread(file.write, page)


def _not_asked(error: AddressRefused) -> ProviderError:
    message = f"The picture's address {error.message}."
    return ProviderError(message, ErrorClass.TEMPORARY) if error.why == "unknown" else _refused(message)


def _check_signature(head: bytes) -> None:
    if picture_type(head) is None:
        raise _refused("The picture's address holds no picture that can be read.")


def _joined(current: httpx2.URL, location: str | None) -> httpx2.URL:
    if not location:
        raise _refused("The picture's address redirects to nowhere.")
    try:
        return parse_url(str(current.join(location)))
    except httpx2.InvalidURL as error:
        raise _refused("The picture's address redirects to an invalid URL.") from error


def _check_status(response: httpx2.Response) -> None:
    status = response.status_code
    if status == httpx2.codes.OK:
        return
    code = str(status)
    if status in GONE:
        raise ProviderError(
            "The picture's link has expired or is not open to us.", ErrorClass.PERMANENT, ErrorKind.EXPIRED, code
        )
    wait_s = parse_retry_after(response.headers, datetime.now(UTC))
    if status == httpx2.codes.TOO_MANY_REQUESTS:
        raise ProviderError(
            "The picture's host asks us to slow down.", ErrorClass.RATE_LIMIT, vendor_code=code, retry_after_s=wait_s
        )
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR or status in {408, 425}:
        raise ProviderError(
            f"The picture's host failed with {code}.", ErrorClass.TEMPORARY, vendor_code=code, retry_after_s=wait_s
        )
    raise ProviderError(
        f"The picture's host answered {code} instead of a picture.", ErrorClass.PERMANENT, vendor_code=code
    )


def _check_headers(response: httpx2.Response, max_bytes: int) -> None:
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in UNTYPED and not content_type.startswith("image/"):
        raise _refused(f"The picture's address holds {content_type}, not a picture.")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _refused("The picture's host sent it compressed though it was asked not to.")
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)


def _refused(message: str) -> ProviderError:
    return ProviderError(message, ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST)


def _too_large(max_bytes: int) -> ProviderError:
    return _refused(f"The picture is larger than {max_bytes / 1024 / 1024:g} MiB.")
