"""HTTP to addresses that clients name: inputs, webhooks, upload endpoints.

A client could point the server at machines that only the server can reach. So a host name is resolved once,
every address it resolves to must be public, and the connection goes to an address that was checked, on every
redirect again. (OWASP: Server-Side Request Forgery Prevention Cheat Sheet.)
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from string import punctuation
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import httpcore

__all__ = ["FetchError", "ForbiddenAddressError", "StatusError", "WebClient"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5


class FetchError(Exception):
    """The request was refused or failed; the message is fit to be shown to the client."""


class ForbiddenAddressError(FetchError):
    """The address is not one that clients may name."""


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

    def __init__(self, *, timeout: float, private_networks: bool = False) -> None:
        """
        Args:
            timeout: seconds for a whole request, redirects and body included.
            private_networks: whether addresses need not be public.
        """
        self._timeout = timeout
        self._pool = httpcore.AsyncConnectionPool(
            network_backend=_CheckedBackend(private_networks), max_connections=100, retries=0
        )

    async def get(self, url: str, *, max_bytes: int) -> bytes:
        """The body at a URL, after at most five redirects.

        Raises:
            FetchError: if the URL is not HTTP, leads to an address that is not public, does not answer with
                200 in time, or has a body of more than `max_bytes`.
        """
        async with self._guarded(url):
            for _ in range(_MAX_REDIRECTS + 1):
                async with self._pool.stream("GET", _checked(url), headers=_headers()) as response:
                    if response.status in _REDIRECTS:
                        url = urljoin(url, _header(response, b"location"))
                        continue
                    if response.status != 200:
                        raise StatusError(response.status)
                    return await _body(response, max_bytes)
            raise FetchError(f"more than {_MAX_REDIRECTS} redirects")

    async def send(
        self, method: str, url: str, content: bytes, media_type: str, more: Mapping[str, str] | None = None
    ) -> None:
        """Send a body, by PUT or POST, with more headers; redirects are not followed.

        Raises:
            StatusError: for any status but 2xx.
            FetchError: as for `get`.
        """
        async with self._guarded(url):
            headers = [*_headers(), (b"Content-Type", media_type.encode())]
            headers += [(name.encode(), value.encode()) for name, value in (more or {}).items()]
            async with self._pool.stream(method, _checked(url), headers=headers, content=content) as response:
                if not 200 <= response.status < 300:
                    raise StatusError(response.status, _retry_after(response))

    async def close(self) -> None:
        await self._pool.aclose()

    @asynccontextmanager
    async def _guarded(self, url: str) -> AsyncIterator[None]:
        """All that can go wrong on the network, as a `FetchError`, within the timeout."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise FetchError(f"no complete answer within {self._timeout:g} seconds") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise FetchError(f"{urlsplit(url).hostname} cannot be reached") from error
        except (ValueError, httpcore.UnsupportedProtocol) as error:
            raise FetchError("the URL is not valid") from error


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to addresses that are public, and to the very address that was checked."""

    def __init__(self, private_networks: bool) -> None:
        self._private_networks = private_networks
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not self._private_networks and not all(map(is_public, addresses)):
            raise ForbiddenAddressError(f"{host} is not a public address")
        return await self._backend.connect_tcp(
            addresses[0], port, timeout=timeout, local_address=local_address, socket_options=socket_options
        )

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also when it wraps another one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if wrapped:
            return is_public(str(wrapped))
        # NAT64 (RFC 6052) ends in an IPv4 address.
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        # Reserved are also the ranges of obsolete ways to wrap an IPv4 address; is_global has them all.
        if ip.is_reserved or ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast


def _checked(url: str) -> str:
    """The URL in ASCII (RFC 3987 section 3.1), if it is one that may be asked for."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ForbiddenAddressError("the URL must begin with http:// or https:// and name a host")
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
