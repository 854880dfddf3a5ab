"""Fetches files by their address: what was fetched before an interruption is not fetched again."""

import http
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx_models.errors import DownloadError
from onnx_models.files import sha256_of

__all__ = ["fetch"]

_CHUNK = 2**18
_TIMEOUT = 30.0  # seconds without a byte


def fetch(
    url: str, sha256: str, size: int, target: Path, on_bytes: Callable[[int], None] = lambda _count: None
) -> None:
    """Fetch a file; if it is there in part, only the rest of it.

    A file that is complete and wrong is removed, so that the next attempt begins anew.

    Args:
        url: Its address, http or https.
        sha256: What it must be, in hexadecimal.
        size: How large it is, in bytes.
        target: Where to; its directory is made if it is missing.
        on_bytes: Called with how much of it is there.

    Raises:
        DownloadError: The server does not give it, the connection breaks, it is another file than the
            catalogue vouches for, or it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        there = target.stat().st_size if target.exists() else 0
        if there > size:
            target.unlink()
            there = 0
        if there < size:
            _fetch_rest(url, size, target, there, on_bytes)
        found = sha256_of(target)
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url}: the server answered with status {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url} cannot be fetched: {reason}; try again to continue") from error
    if found != sha256:
        target.unlink()
        raise DownloadError(f"{url} has the SHA-256 {found}, the catalogue vouches for {sha256}")


def _fetch_rest(url: str, size: int, target: Path, there: int, on_bytes: Callable[[int], None]) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "tilewire"})  # noqa: S310 - the catalogue's
    if there:
        request.add_header("Range", f"bytes={there}-")
    try:
        response: Any = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310 - http or https, by its type
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        target.unlink()
        _fetch_rest(url, size, target, 0, on_bytes)
        return
    with response:
        continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
        expected = f"bytes {there}-"
        if continues and not response.headers.get("Content-Range", "").startswith(expected):
            raise DownloadError(f"{url}: the server answered with another part of the file")
        count = there if continues else 0
        with target.open("ab" if continues else "wb") as file:
            while chunk := response.read(min(_CHUNK, size + 1 - count)):
                file.write(chunk)
                count += len(chunk)
                on_bytes(min(count, size))
                if count > size:
                    break
    if count < size:
        raise DownloadError(
            f"{url}: the connection broke after {count} of {size} bytes; try again to continue"
        )
