"""The documentation pages: complete, without scripts, and every link leads somewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import httpcore
import msgspec
import pytest

from server.docs.pages import PAGES
from server.protocol.error_codes import CODES
from server.serving import EmbeddedServer
from server.settings import Settings
from server.specs.parameters import parameter_codes
from server.specs.schemas import MESSAGE_CLASSES, components, schema_name
from tests.server.support.harness import connected, new_uuid
from tests.server.support.process import REPOSITORY

NOT_DIRECTIVES = ("<!-- architectures -->", "<!-- end of architectures -->", "<!-- webhook -->")


class Seen(HTMLParser):
    """What is in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.pictures: dict[str, str] = {}
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            given = dict(attrs)
            self.pictures[given["src"] or ""] = given.get("alt") or ""
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src"):
                self.links.add(value or "")


def page(server: EmbeddedServer, path: str) -> str:
    response = httpcore.request("GET", f"{server.url}{path}")
    assert response.status == 200, path
    return response.content.decode()


@pytest.fixture(scope="module")
def pages(server: EmbeddedServer) -> dict[str, Seen]:
    return {f"/docs/{one.name}": Seen(page(server, f"/docs/{one.name}")) for one in PAGES}


def test_every_file_of_the_documentation_is_a_page() -> None:
    files = {path.stem for path in (REPOSITORY / "server" / "docs").glob("*.md")}
    assert files == {one.name for one in PAGES}


def test_every_setting_is_explained_and_nothing_of_this_machine_is_told(server: EmbeddedServer) -> None:
    text = page(server, "/docs/settings")
    for field in msgspec.structs.fields(Settings):
        assert f'<td data-head="Setting"><code>{field.name}</code></td>' in text
    assert str(Path.home()) not in text


def test_docs_begins_with_the_first_page(server: EmbeddedServer) -> None:
    response = httpcore.request("GET", f"{server.url}/docs")
    location = dict(response.headers)[b"location"].decode()
    assert (response.status, location) == (307, f"docs/{PAGES[0].name}")


def test_an_unknown_page_is_not_found(server: EmbeddedServer) -> None:
    assert httpcore.request("GET", f"{server.url}/docs/nothing").status == 404
    assert httpcore.request("GET", f"{server.url}/docs/..%2f..%2fsettings").status == 404


def test_all_links_within_the_server_lead_somewhere(server: EmbeddedServer, pages: dict[str, Seen]) -> None:
    for path, seen in pages.items():
        for link in seen.links:
            target, anchor = urldefrag(urljoin(path, link))
            if urlsplit(target).netloc or target in ("/", "/docs"):  # the page of the server; redirected
                continue
            if target in pages:
                assert not anchor or anchor in pages[target].ids, f"{path}: {link}"
            else:
                assert httpcore.request("GET", f"{server.url}{target}").status == 200, f"{path}: {link}"


def test_pages_have_no_script_or_style_within_them(server: EmbeddedServer, pages: dict[str, Seen]) -> None:
    for path, seen in pages.items():
        assert not {"style", "iframe"} & seen.tags, path
        assert re.findall(r"<script[^>]*>.*", page(server, path)) == [
            '<script type="module" src="docs.js" blocking="render"></script>'
        ]
        assert not {name for name in seen.attributes if name == "style" or name.startswith("on")}, path
        assert len(seen.ids) == len(set(seen.ids)), path


def test_pictures_are_those_of_the_server_and_are_described(
    server: EmbeddedServer, pages: dict[str, Seen]
) -> None:
    assert pages["/docs/which-model"].pictures
    for seen in pages.values():
        for address, description in seen.pictures.items():
            response = httpcore.request("GET", f"{server.url}/docs/{address}")
            assert dict(response.headers)[b"content-type"] == b"image/jpeg", address
            assert description


def test_browsers_are_told_to_load_nothing_of_elsewhere(server: EmbeddedServer) -> None:
    headers = dict(httpcore.request("GET", f"{server.url}/docs/tasks").headers)
    policy = headers[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';")
    assert "unsafe" not in policy


def test_every_section_can_be_searched_and_leads_to_its_place(
    server: EmbeddedServer, pages: dict[str, Seen]
) -> None:
    sections = msgspec.json.decode(page(server, "/docs/search.json"))
    assert {section["page"] for section in sections} == {one.name for one in PAGES}
    for section in sections:
        assert section["heading"]
        assert not re.search(r"<\w|&\w+;", section["heading"])
        assert not section["anchor"] or section["anchor"] in pages[f"/docs/{section['page']}"].ids
    text = " ".join(section["text"] for section in sections)
    assert "upscaleFactor" in text
    assert "127.0.0.1:8080" not in text


def test_every_directive_was_replaced(server: EmbeddedServer) -> None:
    for one in PAGES:
        left = re.findall(r"<!-- .*-->|&lt;!-- ", page(server, f"/docs/{one.name}"))
        assert all(comment in NOT_DIRECTIVES for comment in left), one.name


def test_every_code_has_an_anchor(pages: dict[str, Seen]) -> None:
    codes = {*CODES, *(code for codes in parameter_codes().values() for code in codes)}
    assert codes <= set(pages["/docs/errors"].ids)


async def test_the_link_of_an_error_leads_to_its_code(server: EmbeddedServer, pages: dict[str, Seen]) -> None:
    wrong = {"taskType": "upscale", "inputs": {"image": "x"}}
    async with connected(server) as peer:
        for changes in ({"settings": {"steps": 1}}, {"outputQuality": 1}, {"ttl": "x"}, {"model": "x"}):
            (error,) = await peer.ask(wrong | {"taskUUID": new_uuid()} | changes)
            path, anchor = urldefrag(error["documentation"].removeprefix(server.url))
            assert anchor in pages[path].ids


def test_every_task_and_reply_is_explained(server: EmbeddedServer) -> None:
    text = "".join(page(server, f"/docs/{one.name}") for one in PAGES)
    for struct in MESSAGE_CLASSES:
        for field in components()[schema_name(struct)]["properties"]:
            assert field in text, f"{schema_name(struct)}.{field}"


def test_examples_show_the_address_of_the_server(server: EmbeddedServer) -> None:
    text = page(server, "/docs/quick-start")
    assert server.url.replace("http", "ws") in text
    for one in PAGES:
        assert "127.0.0.1:8080" not in page(server, f"/docs/{one.name}")


def test_an_address_cannot_bring_markup_into_a_page(server: EmbeddedServer) -> None:
    evil = {"Host": 'x"><script>alert(1)</script>'}
    response = httpcore.request("GET", f"{server.url}/docs/quick-start", headers=evil)
    assert b"<script>alert" not in response.content
