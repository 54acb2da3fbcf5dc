from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.addresses import AllowList, is_public, parse_address

PRIVATE = [
    "0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "198.18.0.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::",
    "fe80::1%eth0",
]  # fmt: skip


@pytest.mark.parametrize("text", PRIVATE)
def test_what_is_not_public_is_not_reached(text: str) -> None:
    assert not AllowList().permits("pictures.example", parse_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_reached(text: str) -> None:
    assert AllowList().permits("pictures.example", parse_address(text))


def test_hosts_addresses_and_networks_can_be_allowed() -> None:
    allow = AllowList.parse(["MinIO.internal.", " 10.1.0.0/16", "::1", "fd00::/8", ""])
    assert allow.permits("minio.internal", ip_address("192.168.0.9"))
    assert allow.permits("anything", ip_address("10.1.2.3"))
    assert allow.permits("anything", ip_address("::ffff:10.1.2.3"))
    assert allow.permits("localhost", ip_address("::1"))
    assert not allow.permits("sub.minio.internal", ip_address("192.168.0.9"))
    assert not allow.permits("anything", ip_address("10.2.0.1"))


def test_a_network_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/33"):
        AllowList.parse(["10.0.0.0/33"])


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_as_public_as_its_mapped_form(number: int) -> None:
    plain = IPv4Address(number)
    assert is_public(plain) == is_public(IPv6Address(f"::ffff:{plain}"))
