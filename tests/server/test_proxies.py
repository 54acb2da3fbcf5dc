import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.proxies import Proxies

PROXY, INNER, CLIENT, FORGED = "10.0.0.1", "10.0.0.2", "203.0.113.5", "198.51.100.9"


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ((), CLIENT, [], CLIENT),
        ((), CLIENT, [FORGED], CLIENT),
        ((), "127.0.0.1", [FORGED], ""),
        (("10.0.0.0/8",), CLIENT, [FORGED], CLIENT),
        (("10.0.0.0/8",), PROXY, [CLIENT], CLIENT),
        (("10.0.0.0/8",), PROXY, [f"{FORGED}, {CLIENT}"], CLIENT),
        (("10.0.0.0/8",), PROXY, [FORGED, f"{CLIENT}, {INNER}"], CLIENT),
        (("10.0.0.0/8",), PROXY, [f"{CLIENT}:4711"], CLIENT),
        (("10.0.0.0/8",), PROXY, [], ""),
        (("10.0.0.0/8",), PROXY, ["nonsense"], ""),
        (("10.0.0.0/8",), PROXY, [INNER], ""),
        (("127.0.0.1",), "127.0.0.1", [CLIENT], CLIENT),
        (("127.0.0.1",), "::ffff:127.0.0.1", ["[2001:db8:1:2:3::4]:99"], "2001:db8:1:2::/64"),
        ((), "2001:db8:1:2:ffff::1", [], "2001:db8:1:2::/64"),
        ((), "", [], ""),
    ],
)
def test_the_first_address_from_the_right_that_no_trusted_proxy_has(
    trusted: tuple[str, ...], peer: str, forwarded: list[str], client: str
) -> None:
    assert Proxies(trusted).client_of(peer, forwarded) == client


@given(st.lists(st.text(max_size=40), max_size=4))
def test_a_header_of_somebody_who_is_not_trusted_changes_nothing(forwarded: list[str]) -> None:
    assert Proxies([PROXY]).client_of(CLIENT, forwarded) == CLIENT


@given(st.lists(st.text(max_size=60), max_size=4))
def test_what_a_client_writes_stays_left_of_its_own_address(forwarded: list[str]) -> None:
    assert Proxies([PROXY]).client_of(PROXY, [*forwarded, CLIENT]) == CLIENT
