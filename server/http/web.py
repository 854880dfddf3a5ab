"""The page: `GET /`, and the files it is made of, below `/web/`. What they may load: see `security`.

Beside it lie the two files that make it an app, whose addresses browsers want to stay the same: the
manifest and the service worker.

The files' path holds a digest of them all: a browser may keep what it has of one digest for ever, and a page
is never put together from the files of two versions.
"""

import hashlib
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from server.http.client_module import CLIENT, joined
from server.http.files import MEDIA_TYPES, File
from server.protocol.names import wire_name
from server.settings import Settings

__all__ = ["Page"]

_DIRECTORY: Final = Path(__file__).parents[1] / "web"
_CLIENT: Final = _DIRECTORY / "client"
_INDEX: Final = "index.html"
_APP_FILES: Final = ("manifest.webmanifest", "service-worker.js")
_APP_POLICY: Final = "default-src 'none'; connect-src 'self'"
"""What the service worker may do: fetch what the page would."""

_FRAME_OVERHEAD: Final = 1024
"""The most that an upload needs in a frame beside the image."""


class Limits(Struct, frozen=True, rename=wire_name):
    """What the page checks of an image before it uploads it; the server checks it again."""

    max_image_bytes: int
    max_input_megapixels: float
    max_output_megapixels: float
    has_prices: Annotated[bool, Meta(description="Whether prices were set; else they are of no interest.")]


class Page:
    """The page's files, read once."""

    def __init__(self, settings: Settings) -> None:
        bodies = {
            path.relative_to(_DIRECTORY).as_posix(): path.read_bytes()
            for path in sorted(_DIRECTORY.rglob("*"))
            if path.suffix in MEDIA_TYPES and path.parent != _CLIENT
        } | {CLIENT: joined().encode()}
        self._digest = hashlib.sha256(b"\0".join(bodies.values())).hexdigest()[:16]
        index = self._fill(bodies.pop(_INDEX).decode(), bodies, settings)
        self._index = File(_INDEX, index.encode())
        self._app_files = {name: File(name, self._placed(bodies.pop(name).decode())) for name in _APP_FILES}
        self._files = {name: File(name, body) for name, body in bodies.items()}

    async def get_index(self, request: Request) -> Response:
        """The page itself; a browser asks each time whether it is still the same."""
        return self._index.response(request.headers, {"cache-control": "no-cache"})

    async def get_app_file(self, request: Request) -> Response:
        """The manifest or the service worker; a browser asks each time whether it is still the same."""
        file = self._app_files[request.url.path.rpartition("/")[2]]
        return file.response(
            request.headers, {"cache-control": "no-cache", "content-security-policy": _APP_POLICY}
        )

    async def get_file(self, request: Request) -> Response:
        """One of its files."""
        file = self._files.get(request.path_params["name"])
        if file is None or request.path_params["digest"] != self._digest:
            return PlainTextResponse("there is no such file\n", status_code=404)
        return file.response(request.headers, {"cache-control": "public, max-age=31536000, immutable"})

    @property
    def _root(self) -> str:
        return f"web/{self._digest}"

    def _placed(self, text: str) -> bytes:
        return text.replace("{files}", self._root).encode()

    def _fill(self, index: str, names: Iterable[str], settings: Settings) -> str:
        """The page with what it needs to know of this server and its files; all paths are relative to it."""
        limits = Limits(
            max_image_bytes=min(settings.max_image_bytes, settings.max_frame_bytes - _FRAME_OVERHEAD),
            max_input_megapixels=settings.max_input_megapixels,
            max_output_megapixels=settings.max_output_megapixels,
            has_prices=bool(settings.prices),
        )
        modules = "\n".join(
            f'<link rel="modulepreload" href="{self._root}/{name}">'
            for name in names
            if name.endswith(".js") and name not in _APP_FILES
        )
        return (
            index.replace("{limits}", escape(msgspec.json.encode(limits).decode()))
            .replace("{files}", self._root)
            .replace("<!-- modules -->", modules)
        )
