"""Which addresses are public, and what an operator can open besides."""

import pytest

from server.outbound.addresses import Reachable, is_public


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1", "240e::1"],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_public_addresses_are_public_also_when_wrapped(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "entry", ["", "10.0.0.0/33", "10.0.0.1/8", "http://x", "a b", "x:80", "*.internal", "a@b"]
)
def test_what_is_no_address_network_or_name_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="is not an address, a network or a host name"):
        Reachable(private=[entry])
