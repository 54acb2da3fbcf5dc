"""Which network addresses a download may reach. Pure: names are resolved elsewhere."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts and networks that may be reached besides public addresses."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """
        Read host names, addresses and CIDRs; empty entries are skipped.

        Raises:
            ValueError: A CIDR that is none, such as "10.0.0.0/33".
        """
        hosts, networks = set(), []
        for entry in filter(None, (entry.strip() for entry in entries)):
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                if "/" in entry:
                    raise
                hosts.add(plain_host(entry))
        return cls(frozenset(hosts), tuple(networks))

    def permits(self, host: str, address: Address) -> bool:
        """Whether that address, which `host` resolved to, may be reached."""
        return (
            plain_host(host) in self.hosts
            or is_public(address)
            or any(each in network for each in _all_forms(address) for network in self.networks)
        )


def plain_host(host: str) -> str:
    """A host name as it is compared: lower case, without the final dot."""
    return host.lower().rstrip(".")


def is_public(address: Address) -> bool:
    """Whether an address is anyone's to reach, in every form it may be carried in."""
    return all(each.is_global and not each.is_multicast for each in _all_forms(address))


def _all_forms(address: Address) -> tuple[Address, ...]:
    """
    The address, and the IPv4 address inside an IPv6 one.

    A mapped address is only its IPv4 form: the socket goes there, and IPv6 rules say nothing about it.
    """
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    inside: list[Address] = []
    if address.sixtofour is not None:
        inside.append(address.sixtofour)
    if address.teredo is not None:
        inside.extend(address.teredo)
    if address in _NAT64:
        inside.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return (address, *inside)


def parse_address(text: str) -> Address:
    """An address as `getaddrinfo` gives it, without its zone."""
    return ip_address(text.partition("%")[0])
