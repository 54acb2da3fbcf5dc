"""Outgoing HTTP: the client every provider uses, and the guarded download of a picture."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeAlias

import httpx2

from providers.addresses import Address, AllowList, parse_address
from providers.base import ImageInput, picture_type
from providers.errors import ErrorClass, ErrorKind, ProviderError
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

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]


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


async def resolve_host(host: str, port: int) -> Sequence[Address]:
    """
    Every address of a host, in the order the system prefers.

    Raises:
        OSError: There is none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(parse_address(str(entry[4][0])) for entry in found))


async def fetch_image(
    url: str,
    *,
    allow: Collection[str] = (),
    max_bytes: int = MAX_IMAGE_BYTES,
    timeout_s: float = FETCH_TIMEOUT_S,
    resolve: Resolver = resolve_host,
) -> ImageInput:
    """
    Download a picture from an address somebody else chose.

    The name is resolved once, every address it has is checked, and the connection goes to a checked one, so that a
    second answer of the name server cannot lead elsewhere. Redirects are followed by hand and checked the same way.

    Args:
        url: http or https.
        allow: Hosts and CIDRs that may be reached though they are not public.
        max_bytes: Counted while the body arrives, whatever the headers said.
        timeout_s: For everything together: names, redirects, body.
        resolve: How names become addresses.

    Raises:
        ProviderError: EXPIRED where the picture is gone, BAD_REQUEST where the address may not be reached or holds
            no picture, TEMPORARY where trying again may help.
    """
    try:
        async with asyncio.timeout(timeout_s), create_client(timeout_s) as client:
            return await _Download(client, AllowList.parse(allow), max_bytes, resolve).follow(url)
    except TimeoutError as error:
        raise ProviderError(
            f"Downloading the picture took longer than {timeout_s:g} s.", ErrorClass.TEMPORARY, ErrorKind.TIMEOUT
        ) from error
    except httpx2.TimeoutException as error:
        raise ProviderError("The picture's host stopped answering.", ErrorClass.TEMPORARY, ErrorKind.TIMEOUT) from error
    except httpx2.HTTPError as error:
        raise ProviderError("The picture's host broke off the connection.", ErrorClass.TEMPORARY) from error


@dataclass(frozen=True, slots=True)
class _Download:
    client: httpx2.AsyncClient
    allow: AllowList
    max_bytes: int
    resolve: Resolver

    async def follow(self, url: str) -> ImageInput:
        current = _parsed(url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._get(current)
            try:
                if response.status_code not in REDIRECTS:
                    return await self._read(response)
                current = _joined(current, response.headers.get("location"))
            finally:
                await response.aclose()
        raise _refused(f"The picture's address redirects more than {MAX_REDIRECTS} times.")

    async def _get(self, url: httpx2.URL) -> httpx2.Response:
        """Ask the first checked address that takes the connection."""
        addresses = await self._checked(url)
        for address in addresses[:-1]:
            try:
                return await self._ask(url, address)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._ask(url, addresses[-1])

    async def _ask(self, url: httpx2.URL, address: Address) -> httpx2.Response:
        # Host and SNI keep the name: only the connection is pinned. Without content coding a small
        # compressed body cannot grow past the byte limit in one step.
        request = self.client.build_request(
            "GET",
            url.copy_with(host=str(address)),
            headers={"host": url.netloc.decode("ascii"), "accept": "image/*", "accept-encoding": "identity"},
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        return await self.client.send(request, stream=True)

    async def _checked(self, url: httpx2.URL) -> Sequence[Address]:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self.resolve(url.raw_host.decode("ascii"), port)
        except (OSError, UnicodeError) as error:
            raise ProviderError(f"The picture's host {url.host} is not known.", ErrorClass.TEMPORARY) from error
        if not addresses:
            raise ProviderError(f"The picture's host {url.host} has no address.", ErrorClass.TEMPORARY)
        if not all(self.allow.permits(url.host, address) for address in addresses):
            raise _refused(f"The picture's host {url.host} is not on the public internet, so it was not asked.")
        return addresses

    async def _read(self, response: httpx2.Response) -> ImageInput:
        _check_status(response)
        _check_headers(response, self.max_bytes)
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self.max_bytes:
                raise _too_large(self.max_bytes)
        if not body:
            raise ProviderError("The picture's host sent an empty file.", ErrorClass.TEMPORARY)
        data = bytes(body)
        content_type = picture_type(data)
        if content_type is None:
            raise _refused("The picture's address holds no picture that can be read.")
        return ImageInput(data, content_type)


def _parsed(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
        parsed.netloc.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
        raise _refused("The picture's address is not a valid URL.") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise _refused("The picture's address is not an http(s) URL.")
    if parsed.userinfo:
        raise _refused("The picture's address holds a user name or password.")
    return parsed


def _joined(current: httpx2.URL, location: str | None) -> httpx2.URL:
    if not location:
        raise _refused("The picture's address redirects to nowhere.")
    try:
        return _parsed(str(current.join(location)))
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
