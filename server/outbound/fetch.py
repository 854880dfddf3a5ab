"""HTTP to addresses that clients name: inputs, webhooks, upload endpoints.

Where a result is to go in the end is seen before it is made: see `WebClient.reach`.

A client could point the server at machines that only the server can reach. So a host name is resolved once
for each connection, what `server.outbound.addresses` does not allow is left out, and the connection goes to
an address that was checked; on every redirect again. (OWASP: Server-Side Request Forgery Prevention Cheat
Sheet.)
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from string import punctuation
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

import httpcore

from server.outbound.addresses import Reachable

__all__ = ["FetchError", "ForbiddenAddressError", "Resolve", "StatusError", "WebClient"]

log = logging.getLogger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_CONNECTIONS: Final = 64
_MAX_ADDRESSES: Final = 4
_CONNECT_TIMEOUT: Final = 5.0
"""Seconds for each address of a host, before the next is tried."""

_REACHED_FOR: Final = 60.0
_REACHED_REMEMBERED: Final = 1000

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""The IP addresses of a host name, for a port; raises OSError if there are none."""


Place: TypeAlias = Callable[[Hashable, str | None], AbstractAsyncContextManager[None]]
"""A place among the connections, for an account and a host."""


def _anywhere(_account: Hashable, _host: str | None) -> AbstractAsyncContextManager[None]:
    return nullcontext()


class FetchError(Exception):
    """The request was refused or failed; the message is fit to be shown to the client."""


class ForbiddenAddressError(FetchError):
    """The URL is not one that clients may give."""


class StatusError(FetchError):
    """The answer was not a success.

    Attributes:
        status: its HTTP status.
        retry_after: its header of that name (RFC 9110 section 10.2.3), if it had one.
    """

    def __init__(self, status: int, retry_after: str | None = None) -> None:
        super().__init__(f"the server answered with status {status}")
        self.status = status
        self.retry_after = retry_after


class WebClient:
    """Requests to addresses that clients name. Close it when done."""

    def __init__(
        self,
        *,
        timeout: float,
        reachable: Reachable | None = None,
        resolve: Resolve | None = None,
        place: Place = _anywhere,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            timeout: seconds for a whole request, redirects and body included.
            reachable: the addresses that may be connected to; by default the public ones.
            resolve: the addresses of a host; by default those that the system knows.
            place: what a request has while it lasts, for an account and a host; its time begins then.
            tls: what servers' certificates are checked by; by default those that the system trusts, whose
                reading takes 50 ms.
        """
        self._timeout = timeout
        self._reachable = reachable or Reachable()
        # Not the threads of everything else: a client's name server may let each wait for many seconds.
        self._resolvers = ThreadPoolExecutor(_CONNECTIONS, "resolver")
        self._places = place
        self._backend = _CheckedBackend(self._reachable, resolve or partial(_resolve, self._resolvers))
        self._tls = tls or httpcore.default_ssl_context()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            network_backend=self._backend,
            max_connections=_CONNECTIONS,
            retries=0,
        )
        self._reached: dict[str, float] = {}

    async def get(self, url: str, *, max_bytes: int, account: Hashable = None) -> bytes:
        """The body at a URL, after at most five redirects.

        Args:
            url: as a client gave it.
            max_bytes: of the body.
            account: on whose behalf.

        Raises:
            FetchError: if the URL is not HTTP, leads to an address that is not public, does not answer with
                200 in time, or has a body of more than `max_bytes`.
        """
        async with self._place(account, url), self._guarded(url):
            for _ in range(_MAX_REDIRECTS + 1):
                async with self._pool.stream("GET", self._checked(url), headers=_headers()) as response:
                    if response.status in _REDIRECTS:
                        url = urljoin(url, _header(response, b"location"))
                        continue
                    if response.status != 200:
                        raise StatusError(response.status)
                    return await _body(response, max_bytes)
            raise FetchError(f"more than {_MAX_REDIRECTS} redirects")

    async def reach(self, url: str, *, account: Hashable = None) -> None:
        """See that the host of a URL takes connections, TLS included.

        One that did within the last minute is not asked again.

        Args:
            url: as a client gave it.
            account: on whose behalf.

        Raises:
            FetchError: if it does not, or the URL is not one that `get` and `send` take.
        """
        async with self._guarded(url):
            address = httpcore.URL(self._checked(url)).origin
        time = asyncio.get_running_loop().time
        if self._reached.get(str(address), 0) > time():
            return
        async with self._place(account, url), self._guarded(url):
            if self._reached.get(str(address), 0) > time():  # while this one waited
                return
            host, seconds = address.host.decode(), self._timeout
            stream = await self._backend.connect_tcp(host, address.port, timeout=seconds)
            try:
                if address.scheme == b"https":
                    stream = await stream.start_tls(self._tls, server_hostname=host, timeout=seconds)
            finally:
                await stream.aclose()
        self._reached[str(address)] = time() + _REACHED_FOR
        if len(self._reached) > _REACHED_REMEMBERED:
            del self._reached[next(iter(self._reached))]

    async def send(
        self,
        method: str,
        url: str,
        content: bytes,
        media_type: str,
        more: Mapping[str, str] | None = None,
        *,
        account: Hashable = None,
    ) -> None:
        """Send a body, by PUT or POST, with more headers; redirects are not followed.

        Args:
            method: PUT or POST.
            url: as a client gave it.
            content: the body.
            media_type: of the body.
            more: headers.
            account: on whose behalf.

        Raises:
            StatusError: for any status but 2xx.
            FetchError: as for `get`.
        """
        async with self._place(account, url), self._guarded(url):
            headers = [*_headers(), (b"Content-Type", media_type.encode())]
            headers += [(name.encode(), value.encode()) for name, value in (more or {}).items()]
            async with self._pool.stream(
                method, self._checked(url), headers=headers, content=content
            ) as response:
                if not 200 <= response.status < 300:
                    raise StatusError(response.status, _retry_after(response))

    async def close(self) -> None:
        """End all requests."""
        await self._pool.aclose()
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    def _checked(self, url: str) -> str:
        """The URL in ASCII, if it is one that may be asked for."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ForbiddenAddressError("the URL must begin with http:// or https:// and name a host")
        if "@" in parts.netloc:
            raise ForbiddenAddressError("the URL must not hold a user name or password")
        if not self._reachable.may_be_named(parts.hostname):
            raise ForbiddenAddressError(f"{parts.hostname} is not a public address")
        return _in_ascii(parts)

    @asynccontextmanager
    async def _place(self, account: Hashable, url: str) -> AsyncIterator[None]:
        try:
            host = urlsplit(url).hostname
        except ValueError:
            host = None  # the request will say so
        async with self._places(account, host):
            yield

    @asynccontextmanager
    async def _guarded(self, url: str) -> AsyncIterator[None]:
        """All that can go wrong on the network, as a `FetchError`, within the timeout."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise FetchError(f"no complete answer within {self._timeout:g} seconds") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            log.info("%s cannot be reached: %s", urlsplit(url).hostname, error)
            raise FetchError(f"{urlsplit(url).hostname} cannot be reached") from error
        except (ValueError, httpcore.UnsupportedProtocol) as error:
            raise FetchError("the URL is not valid") from error


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to addresses that may be reached, and to the very address that was checked."""

    def __init__(self, reachable: Reachable, resolve: Resolve) -> None:
        self._reachable = reachable
        self._resolve = resolve
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await self._resolve(host, port)
        allowed = [address for address in found if self._reachable.allows(host, address)]
        if not allowed:
            # What names lead to in the network of the server is not the client's business.
            log.info("a client's URL leads to addresses that are not public: %s, %s", host, ", ".join(found))
            raise httpcore.ConnectError
        failure: Exception | None = None
        for address in allowed[:_MAX_ADDRESSES]:
            try:
                return await self._backend.connect_tcp(
                    address,
                    port,
                    timeout=min(timeout or _CONNECT_TIMEOUT, _CONNECT_TIMEOUT),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


async def _resolve(threads: ThreadPoolExecutor, host: str, port: int) -> list[str]:
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(threads, ask)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _in_ascii(parts: SplitResult) -> str:
    """A URL with a host in ASCII (RFC 3987 section 3.1)."""
    assert parts.hostname is not None
    address = parts.netloc
    if not address.isascii():
        address = parts.hostname.encode("idna").decode() + (f":{parts.port}" if parts.port else "")
    path, query = (quote(part, safe=punctuation) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, address, path, query, ""))


def _headers() -> list[tuple[bytes, bytes]]:
    return [(b"User-Agent", b"Tilewire"), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")]


def _header(response: httpcore.Response, name: bytes) -> str:
    for key, value in response.headers:
        if key.lower() == name:
            return quote(value, safe=punctuation)
    raise FetchError("the server redirected to nowhere")


def _retry_after(response: httpcore.Response) -> str | None:
    found = (value for name, value in response.headers if name.lower() == b"retry-after")
    return next(found, b"").decode("ascii", "replace") or None


async def _body(response: httpcore.Response, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_stream():
        size += len(chunk)
        if size > max_bytes:
            raise FetchError(f"the file is larger than {max_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
