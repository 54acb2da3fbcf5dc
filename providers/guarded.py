"""Requests to addresses that somebody else chose: resolved once, checked, and sent to what was checked."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeAlias

import httpx2

from providers.addresses import Address, AllowList, parse_address
from providers.errors import AddressRefused

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


async def resolve_host(host: str, port: int) -> Sequence[Address]:
    """
    Every address of a host, in the order the system prefers.

    Raises:
        OSError: There is none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(parse_address(str(entry[4][0])) for entry in found))


def parse_url(text: str) -> httpx2.URL:
    """
    An http(s) address without a user name or password.

    Raises:
        AddressRefused: It is something else.
    """
    try:
        url = httpx2.URL(text)
        url.netloc.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
        raise AddressRefused("invalid", "is not a valid URL") from error
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        raise AddressRefused("invalid", "is not an http(s) URL")
    if url.userinfo:
        raise AddressRefused("invalid", "holds a user name or password")
    return url


def refuse_literal(url: httpx2.URL, allow: AllowList) -> None:
    """
    Refuse an address of this machine or network that says so by itself; names are looked at when they are asked.

    Raises:
        AddressRefused: It is one.
    """
    host = url.host.strip("[]").lower().rstrip(".")
    try:
        address = parse_address(socket.inet_ntoa(socket.inet_aton(host)) if _is_ipv4(host) else host)
    except ValueError:
        if (host == "localhost" or host.endswith(".localhost")) and not allow.permits(host, ip_address("127.0.0.1")):
            raise AddressRefused("private", "is not on the public internet") from None
        return
    if not allow.permits(url.host, address):
        raise AddressRefused("private", "is not on the public internet")


@dataclass(frozen=True, slots=True)
class Guard:
    """
    Sends requests to public addresses, and to those that are allowed besides.

    Attributes:
        client: Follows no redirect.
        resolve: How names become addresses.
    """

    client: httpx2.AsyncClient
    allow: AllowList
    resolve: Resolver = resolve_host

    async def send(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], content: bytes | None = None
    ) -> httpx2.Response:
        """
        Ask the first checked address that takes the connection; the body of the answer is not read yet.

        A second answer of the name server cannot lead elsewhere: the name is resolved once.

        Raises:
            AddressRefused: The host has no address, or one that may not be reached.
            httpx2.HTTPError: The connection failed.
        """
        addresses = await self._checked(url)
        for address in addresses[:-1]:
            try:
                return await self._ask(method, url, address, headers, content)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._ask(method, url, addresses[-1], headers, content)

    async def _ask(
        self, method: str, url: httpx2.URL, address: Address, headers: Mapping[str, str], content: bytes | None
    ) -> httpx2.Response:
        # Host and SNI keep the name: only the connection is pinned. Without content coding a small
        # compressed body cannot grow past a byte limit in one step.
        pinned = {"host": url.netloc.decode("ascii"), "accept-encoding": "identity"}
        request = self.client.build_request(
            method,
            url.copy_with(host=str(address)),
            headers={**headers, **pinned},
            content=content,
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        return await self.client.send(request, stream=True)

    async def _checked(self, url: httpx2.URL) -> Sequence[Address]:
        port = url.port or _DEFAULT_PORTS[url.scheme]
        try:
            addresses = await self.resolve(url.raw_host.decode("ascii"), port)
        except (OSError, UnicodeError) as error:
            raise AddressRefused("unknown", f"names a host that is not known: {url.host}") from error
        if not addresses:
            raise AddressRefused("unknown", f"names a host that has no address: {url.host}")
        if not all(self.allow.permits(url.host, address) for address in addresses):
            raise AddressRefused("private", f"names a host that is not on the public internet: {url.host}")
        return addresses


def _is_ipv4(host: str) -> bool:
    """Whether the system reads it as an IPv4 address: also "2130706433" and "0x7f.1"."""
    try:
        socket.inet_aton(host)
    except (OSError, UnicodeError):
        return False
    # It also takes a number with words behind it.
    return " " not in host
