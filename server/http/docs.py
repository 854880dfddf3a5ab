"""`/docs`: the documentation for people."""

from pathlib import Path
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from server.docs.pages import PAGES

__all__ = ["get_docs", "get_docs_index", "get_docs_script", "get_docs_start", "get_docs_style"]

_PAGES: Final = {page.name: page for page in PAGES}
_DIRECTORY: Final = Path(__file__).parent.parent / "docs"
_ICON: Final = _DIRECTORY.parent / "web" / "favicon.svg"
_PICTURES: Final = {file.name: file for file in (*_DIRECTORY.glob("*.jpg"), _ICON)}

_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


async def get_docs_start(_request: Request) -> Response:
    """The first page; the address is relative, for servers behind a path of another."""
    return RedirectResponse(f"docs/{PAGES[0].name}")


def get_docs(request: Request) -> Response:  # not async: rendering takes a while, once for each address
    """One page, or a picture on one."""
    name = request.path_params["page"]
    if (picture := _PICTURES.get(name)) is not None:
        return FileResponse(picture)
    page = _PAGES.get(name)
    if page is None:
        return Response("there is no such page\n", 404, media_type="text/plain")
    from server.docs.rendering import render  # noqa: PLC0415 - takes memory, and most servers never need it

    return HTMLResponse(render(page, request.app.state.base_url(request)), headers=_HEADERS)


async def get_docs_style(_request: Request) -> Response:
    """How the pages look."""
    return FileResponse(_DIRECTORY / "docs.css", media_type="text/css")


async def get_docs_script(_request: Request) -> Response:
    """The theme, copying and searching, in the reader's browser."""
    return FileResponse(_DIRECTORY / "docs.js", media_type="text/javascript")


def get_docs_index(request: Request) -> Response:  # not async, like the pages
    """What can be searched: a list of sections."""
    from server.docs.rendering import sections  # noqa: PLC0415 - as above

    found = [section._asdict() for section in sections(request.app.state.base_url(request))]
    return Response(msgspec.json.encode(found), media_type="application/json")
