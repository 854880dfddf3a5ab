"""What one account, and one address, may ask for: how often, how much, over how many connections."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from server.limits.rates import Places, RateLimit, network_of
from server.protocol.errors import QuotaError, RateLimitError
from server.settings import Settings
from server.state.accounts import AccountId

__all__ = ["FIRST_FRAME_BYTES", "Edge", "Visit"]

FIRST_FRAME_BYTES: Final = 64 * 2**10
"""Most that is taken from a client that has yet to authenticate, as a WebSocket message or an HTTP body."""


class Visit:
    """A connection that has yet to authenticate, until it has or is gone."""

    def __init__(self, edge: "Edge", address: str) -> None:
        self._edge = edge
        self._account: AccountId | None = None
        self._waiting = True
        self.address = address

    def welcome(self, account: AccountId) -> None:
        """The connection has authenticated, for the first time or as another account.

        Raises:
            RateLimitError: if the account has too many connections.
        """
        if account != self._account:
            self._edge.take_connection(account)
            self._leave_account()
            self._account = account
        self._stop_waiting()

    def end(self) -> None:
        """The connection is gone."""
        self._leave_account()
        self._stop_waiting()

    def _leave_account(self) -> None:
        if self._account is not None:
            self._edge.account_connections.give_back(self._account)
            self._account = None

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            self._edge.unauthenticated.give_back(self.address)


class Edge:
    """The limits of accounts and of addresses. Every refusal names the limit and when to try again.

    Addresses are counted as `network_of` says.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        rate, burst = settings.requests_per_second, settings.request_burst
        self._clock = clock
        self._requests_of_accounts = RateLimit(rate, burst)
        self._requests_of_addresses = RateLimit(rate, burst)
        guesses = settings.failed_authentications_per_minute
        self._failures = RateLimit(guesses / 60, guesses)
        self._upload_bytes = RateLimit(settings.upload_bytes_per_hour / 3600, settings.upload_bytes_per_hour)
        self._address_connections = Places(settings.max_connections_per_address)
        self.account_connections = Places(settings.max_connections_per_account)
        self.unauthenticated = Places(settings.max_unauthenticated)

    @contextmanager
    def connection_from(self, address: str) -> Iterator[None]:
        """Count a request or a WebSocket of this address, for as long as it lasts.

        Raises:
            RateLimitError: if the address has sent too many of late, or has too many now.
        """
        address = network_of(address)
        limit = self._requests_of_addresses
        if wait := limit.take(address, self._clock()):
            raise _too_often(limit, "requests per second of one address", wait)
        if not self._address_connections.take(address):
            raise _too_many(self._address_connections, "connections of one address")
        try:
            yield
        finally:
            self._address_connections.give_back(address)

    def visit(self, address: str) -> Visit:
        """Count a WebSocket that has yet to authenticate; its `end` must be called.

        Raises:
            RateLimitError: if the address has too many of them.
        """
        address = network_of(address)
        if not self.unauthenticated.take(address):
            raise _too_many(self.unauthenticated, "connections of one address that have yet to authenticate")
        return Visit(self, address)

    def take_connection(self, account: AccountId) -> None:
        """Count a connection of an account, to be given back to `account_connections`.

        Raises:
            RateLimitError: if it has too many.
        """
        if not self.account_connections.take(account):
            raise _too_many(self.account_connections, "connections of one account")

    def take_request(self, account: AccountId) -> None:
        """Count a task.

        Raises:
            RateLimitError: if the account has sent too many of late.
        """
        limit = self._requests_of_accounts
        if wait := limit.take(account, self._clock()):
            raise _too_often(limit, "tasks per second of one account", wait)

    def take_upload(self, account: AccountId, size: int) -> None:
        """Count the bytes of an image that came from the client, or will (0: they are counted later).

        Raises:
            QuotaError: if the account has sent too many.
        """
        limit = self._upload_bytes
        if wait := limit.take(account, self._clock(), size):
            raise QuotaError(
                "uploadQuotaExceeded",
                f"the limit is {limit.burst:g} bytes of images per hour; "
                f"try again in {math.ceil(wait)} seconds",
                retry_after=math.ceil(wait),
            )

    def note_upload(self, account: AccountId, size: int) -> None:
        """Count the bytes of an image that the server fetched for an account."""
        self._upload_bytes.spend(account, self._clock(), size)

    def take_failure(self, address: str) -> None:
        """Count a wrong key from this address. Right ones are not counted, and never refused for wrong ones.

        Raises:
            RateLimitError: if too many were wrong of late; this one is not counted then.
        """
        limit = self._failures
        if wait := limit.take(network_of(address), self._clock()):
            raise RateLimitError(
                "authenticationRateLimit",
                f"the limit is {limit.burst:g} wrong keys per minute from one address; "
                f"try again in {math.ceil(wait)} seconds",
                retry_after=math.ceil(wait),
            )


def _too_often(limit: RateLimit, what: str, wait: float) -> RateLimitError:
    return RateLimitError(
        "requestRateLimit",
        f"the limit is {limit.rate:g} {what}, {limit.burst:g} at once; "
        f"try again in {math.ceil(wait)} seconds",
        retry_after=math.ceil(wait),
    )


def _too_many(places: Places, what: str) -> RateLimitError:
    return RateLimitError(
        "connectionRateLimit",
        f"the limit is {places.limit} {what}; try again when one has ended",
        retry_after=1,
    )
