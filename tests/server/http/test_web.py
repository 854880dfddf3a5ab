"""The page's files over HTTP."""

import gzip
import posixpath
import re

import httpcore
import pytest

from server.serving import EmbeddedServer
from tests.server.support.harness import KEY, connected


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpcore.request("GET", url, headers=names)
    return (
        response.status,
        {name.decode(): value.decode() for name, value in response.headers},
        response.content,
    )


def paths(index: bytes) -> list[str]:
    return re.findall(r'(?:href|src)="(web/[^"]+)"', index.decode())


def test_the_page_and_all_its_files_are_served(server: EmbeddedServer) -> None:
    status, headers, index = get(f"{server.url}/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert "unsafe" not in headers["content-security-policy"]
    files = paths(index)
    assert len(files) > 20
    kinds = {
        "js": "text/javascript; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "svg": "image/svg+xml",
        "png": "image/png",
    }
    for path in files:
        status, headers, body = get(f"{server.url}/{path}")
        assert (status, headers["content-type"]) == (200, kinds[path.rpartition(".")[2]])
        assert headers["cache-control"] == "public, max-age=31536000, immutable"
        assert body


def test_every_module_that_is_imported_is_there(server: EmbeddedServer) -> None:
    _, _, index = get(f"{server.url}/")
    modules = {path for path in paths(index) if path.endswith(".js")}
    for path in modules:
        _, _, source = get(f"{server.url}/{path}")
        imported = re.findall(r'^import .*"(\..+)";$', source.decode(), re.MULTILINE)
        assert {posixpath.normpath(f"{posixpath.dirname(path)}/{name}") for name in imported} <= modules


def test_what_the_browser_has_is_not_sent_again(server: EmbeddedServer) -> None:
    _, headers, _ = get(f"{server.url}/")
    status, again, body = get(f"{server.url}/", if_none_match=f'"other", {headers["etag"]}')
    assert (status, body) == (304, b"")
    assert "content-security-policy" not in again, "it would replace that of the page"
    assert get(f"{server.url}/", if_none_match='"other"')[0] == 200


def test_files_are_compressed_for_those_who_take_it(server: EmbeddedServer) -> None:
    _, plain_headers, plain = get(f"{server.url}/")
    _, headers, compressed = get(f"{server.url}/", accept_encoding="gzip, br")
    assert headers["content-encoding"] == "gzip"
    assert "accept-encoding" in headers["vary"]
    assert headers["vary"] == plain_headers["vary"]
    assert gzip.decompress(compressed) == plain
    assert "content-encoding" not in plain_headers


@pytest.mark.parametrize(
    "path", ["web/0000000000000000/app.js", "web/{digest}/none.js", "web/{digest}/index.html"]
)
def test_other_files_are_not_there(server: EmbeddedServer, path: str) -> None:
    digest = paths(get(f"{server.url}/")[2])[0].split("/")[1]
    assert get(f"{server.url}/{path.format(digest=digest)}")[0] == 404


async def test_tasks_can_still_be_sent_to_the_same_address(server: EmbeddedServer) -> None:
    response = httpcore.request(
        "POST", f"{server.url}/", headers={"authorization": f"Bearer {KEY}"}, content=b'[{"taskType":"ping"}]'
    )
    assert response.content == b'{"data":[{"taskType":"ping","pong":true}]}'
    async with connected(server) as peer:
        await peer.nothing_more()
