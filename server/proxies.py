"""Whose address a connection comes from, when proxies stand between. Pure."""

import ipaddress
from collections.abc import Sequence
from typing import Final

_USUAL_PREFIX: Final = 64
"""One household or machine has so much of IPv6; a limit per address would be none."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """Which proxies are believed when they say whom they speak for.

    Args:
        trusted: Addresses or networks; nobody else's X-Forwarded-For is read.

    """

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted: tuple[Network, ...] = tuple(ipaddress.ip_network(text, strict=False) for text in trusted)

    def client_of(self, peer: str, forwarded: Sequence[str]) -> str:
        """The address whose limits count, the first from the right that no trusted proxy has.

        Args:
            peer: Who holds the other end of the connection.
            forwarded: The values of every X-Forwarded-For header, in order.

        Returns:
            "" for nobody in particular, who shares no limit with others: a program of this machine, which may well be
            a proxy for everybody, or a trusted proxy that does not say for whom it speaks.

        """
        found = _address(peer)
        hops = [hop.strip() for value in forwarded for hop in value.split(",")]
        while found is not None and self._trusts(found) and hops:
            found = _address(hops.pop())
        if found is None or found.is_loopback or self._trusts(found):
            return ""
        if isinstance(found, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((found, _USUAL_PREFIX), strict=False))
        return str(found)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _address(text: str) -> Address | None:
    """An address as proxies write it, with or without a port; None of anything else."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
