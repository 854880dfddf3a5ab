"""`GET /client.js` and `/client.d.ts`: the client for pages, as one module; the page itself is built on it.

It is kept in small modules that name what they need of each other. Joined they are one: then their imports
say nothing, and only what is public is exported. Its types are in a file of their own, so it has no comments
about them.

`python -m server.http.client_module FOLDER` writes it as a package for npm.
"""

import re
import sys
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from server.http.files import File
from server.specs.version import VERSION

__all__ = ["CLIENT", "get_client", "get_client_types", "joined", "write_package"]

CLIENT: Final = "client.js"

_DIRECTORY: Final = Path(__file__).parents[1] / "web" / "client"
_MODULES: Final = ("errors", "uuid", "messagepack", "connection", "sources", "paint", "task", "tilewire")
"""In an order in which each needs only those before it."""

_PUBLIC: Final = ("Tilewire", "TilewireError", "UpscaleTask", "paint")
_OF_THE_PAGE: Final = ("Connection", "ConnectionLost", "newUUID")
"""What the server's own page needs besides; not for others."""

_IMPORT: Final = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n', re.MULTILINE)
_COMMENT: Final = re.compile(r"^ */\*\*(?:(?!\*/).)*\*/\n|/\*\*.*?\*/ ?", re.MULTILINE | re.DOTALL)
_EXPORT: Final = re.compile(r"^export (?=(?:async )?function|class|const)", re.MULTILINE)


def joined() -> str:
    """The client as one module without imports."""
    parts = []
    for name in _MODULES:
        text = (_DIRECTORY / f"{name}.js").read_text("utf-8")
        parts.append(_EXPORT.sub("", _IMPORT.sub("", _COMMENT.sub("", text))).strip())
    body = "\n\n".join(parts)
    return f"/*! Tilewire {VERSION}, MIT */\n\n{body}\n\nexport {{ {', '.join(_PUBLIC + _OF_THE_PAGE)} }};\n"


def write_package(folder: Path) -> None:
    """Write the client into a folder as a package for npm."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLIENT).write_text(joined(), "utf-8")
    for name in ("client.d.ts", "package.json"):
        text = (_DIRECTORY / name).read_text("utf-8")
        (folder / name).write_text(text.replace("{version}", VERSION), "utf-8")


_FILES: Final = {
    CLIENT: File(CLIENT, joined().encode()),
    "client.d.ts": File("client.d.ts", (_DIRECTORY / "client.d.ts").read_bytes()),
}
_HEADERS: Final = {"cache-control": "no-cache", "cross-origin-resource-policy": "cross-origin"}


async def get_client(request: Request) -> Response:
    """The client for pages; a browser asks each time whether it is still the same."""
    return _FILES[CLIENT].response(request.headers, _HEADERS)


async def get_client_types(request: Request) -> Response:
    """Its types, for TypeScript."""
    return _FILES["client.d.ts"].response(request.headers, _HEADERS)


if __name__ == "__main__":
    write_package(Path(sys.argv[1]))
