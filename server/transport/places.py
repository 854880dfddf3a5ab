"""The places that connections take: in all, and from one address."""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from server.limits.memory import Memory
from server.limits.rates import Places, network_of
from server.settings import Settings
from server.transport.open_files import room_for

__all__ = ["Bounds", "ConnectionPlaces"]

_ALL: Final = "all"


class ConnectionPlaces:
    """The connections that are open."""

    def __init__(self, settings: Settings) -> None:
        self._all = Places(room_for(settings.max_connections))
        self._of_peers = Places(settings.max_connections_per_address)
        self._proxies = settings.trusted_proxies

    def take(self, peer: str) -> int | None:
        """Count a connection; over a limit the status that its request is to be answered with.

        A proxy has as many as it needs: the addresses behind it are counted by `Gate`.
        """
        if not self._all.take(_ALL):
            return 503
        if not self._is_proxy(peer) and not self._of_peers.take(network_of(peer)):
            self._all.give_back(_ALL)
            return 429
        return None

    def give_back(self, peer: str) -> None:
        """A connection that was counted is gone."""
        self._all.give_back(_ALL)
        if not self._is_proxy(peer):
            self._of_peers.give_back(network_of(peer))

    def _is_proxy(self, peer: str) -> bool:
        return _is_among(peer, self._proxies)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What bounds a connection."""

    settings: Settings
    places: ConnectionPlaces
    memory: Memory


def _is_among(host: str, networks: Collection[str]) -> bool:
    """Whether an address is in one of the networks; `*` is all. Users of the Unix socket are in none."""
    if host in networks or "*" in networks:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(network) for network in networks if "unix" not in network)
