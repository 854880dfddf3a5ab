"""Where a running server is, as people write it: ws://, http://, unix://, or only a host and port."""

from urllib.parse import SplitResult, urlsplit

from tilewire.socket import unix_path

__all__ = ["http_address", "socket_address"]

_SCHEMES = {"ws": "http", "http": "http", "wss": "https", "https": "https"}
_FORMS = "http://host:port, ws://host:port/v1 or unix:///path"


def http_address(url: str) -> str:
    """What pages of the server are below: `http://host:port`, with the path that a proxy has put before it.

    Args:
        url: with ws, wss, http or https, or none; with or without `/v1` at its end. The address of a Unix
            socket is returned as it is.

    Raises:
        ValueError: if it is no address of a server.
    """
    if unix_path(url) is not None:
        return url
    parts = _parse(url)
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{path}"


def socket_address(url: str) -> str:
    """What the server's socket is at: `ws://host:port/v1`; takes and raises what `http_address` does."""
    address = http_address(url)
    return address if unix_path(address) is not None else f"{address.replace('http', 'ws', 1)}/v1"


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        named = "://" in url or parts.port is not None  # a word alone is more likely a mistake
        if named and parts.scheme in _SCHEMES and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # such as a port that is no number
        pass
    raise ValueError(f"{url!r} is not the address of a server, such as {_FORMS}")
