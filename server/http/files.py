"""Files of the server's own that browsers load: compressed once, and sent only to whom has not got them."""

import gzip
import hashlib
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

__all__ = ["MEDIA_TYPES", "File"]

MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "application/typescript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webmanifest": "application/manifest+json",
}


class File:
    """A file, ready to be sent, plain or compressed."""

    def __init__(self, name: str, body: bytes) -> None:
        self.body = body
        self.compressed = gzip.compress(body, mtime=0)
        self.media_type = MEDIA_TYPES[Path(name).suffix]
        self.etag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'

    def response(self, request: Headers, headers: dict[str, str]) -> Response:
        """The answer to a GET or HEAD with these headers; 304 if the browser has the file."""
        headers = headers | {"etag": self.etag, "vary": "accept-encoding"}
        if self.etag in request.get("if-none-match", ""):  # one of a list, the same for both
            return Response(status_code=304, headers=headers)
        if "gzip" in request.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(self.compressed, headers=headers, media_type=self.media_type)
        return Response(self.body, headers=headers, media_type=self.media_type)
