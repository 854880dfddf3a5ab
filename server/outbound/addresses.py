"""Which addresses of the network clients may make the server connect to."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

__all__ = ["Reachable", "is_public"]

# What is not for the public internet: https://www.iana.org/assignments/iana-ipv4-special-registry (RFC 6890),
# multicast (RFC 5771), and where Azure answers its own virtual machines. Written out, as `is_global` of the
# standard library differs between releases.
_NOT_PUBLIC_4: Final = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]

# Of IPv6 only 2000::/3 has been given out (RFC 4291 section 2.4), less what is in it for special purposes:
# https://www.iana.org/assignments/iana-ipv6-special-registry. Teredo (in 2001::/23) and 6to4 (2002::/16) lead
# to IPv4 addresses through relays that are no more (RFC 7526).
_GIVEN_OUT_6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = [
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_NAT64: Final = IPv6Network("64:ff9b::/96")  # ends in an IPv4 address (RFC 6052), on hosts without IPv4


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also when it holds another one."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_4)
    if ip.ipv4_mapped is not None:
        return is_public(str(ip.ipv4_mapped))
    if ip in _NAT64:
        return is_public(str(IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip in _GIVEN_OUT_6 and not any(ip in network for network in _NOT_PUBLIC_6)


class Reachable:
    """What clients may name: the public internet, and what else the operator opens to them."""

    def __init__(self, *, all_private: bool = False, private: Iterable[str] = ()) -> None:
        """Open what the settings say.

        Args:
            all_private: whether all addresses may be reached, public or not.
            private: addresses, networks (10.1.0.0/16) and host names that need not be public.

        Raises:
            ValueError: if one of them is none of these.
        """
        self._all = all_private
        self._networks: list[IPv4Network | IPv6Network] = []
        self._hosts: set[str] = set()
        for entry in private:
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                if not entry or set(entry) & set("/:@ *"):
                    raise ValueError(f"{entry!r} is not an address, a network or a host name") from None
                self._hosts.add(_plain(entry))

    def may_be_named(self, host: str) -> bool:
        """Whether a URL may hold this host. Names may be in it that turn out to be private: see `allows`."""
        address = _literal(host)
        return address is None or self.allows(host, address)

    def allows(self, host: str, address: str) -> bool:
        """Whether `address`, to which `host` was resolved, may be connected to."""
        if self._all or is_public(address) or _plain(host) in self._hosts:
            return True
        ip: IPv4Address | IPv6Address = ip_address(address)
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)


def _literal(host: str) -> str | None:
    """The address that a host is by itself, whatever it resolves to."""
    plain = _plain(host)
    if plain == "localhost" or plain.endswith(".localhost"):  # RFC 6761 section 6.3
        return "127.0.0.1"
    try:
        return str(ip_address(plain.partition("%")[0]))
    except ValueError:
        pass
    try:
        return str(IPv4Address(socket.inet_aton(plain)))  # 127.1 and 0x7f000001 are addresses to resolvers
    except (OSError, UnicodeError):
        return None


def _plain(host: str) -> str:
    return host.rstrip(".").lower()
