"""The documentation in a browser."""

import re

import pytest

from server.serving import EmbeddedServer
from tests.server.support.page import OpenPage, in_both_schemes_and_sizes, violations


def test_the_documentation_has_the_theme_of_the_page_and_can_be_searched_and_copied(
    server: EmbeddedServer, open_page: OpenPage, axe: str
) -> None:
    page = open_page(server.url, color_scheme="dark", permissions=["clipboard-read", "clipboard-write"])
    page.tab.click("#theme")
    page.tab.goto(f"{server.url}/docs/tasks")
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    assert page.tab.evaluate(scheme) == "light"
    page.tab.click(".theme")
    assert page.tab.evaluate(scheme) == "dark"
    page.tab.hover("pre >> nth=0")
    page.tab.click(".copy >> nth=0")
    page.tab.wait_for_selector(".copy:text-is('Copied')")
    assert page.tab.evaluate("navigator.clipboard.readText()") == page.tab.locator("pre").first.text_content()
    page.tab.keyboard.press("/")
    page.tab.keyboard.type("conflictTaskUUID")
    page.tab.wait_for_selector(".found mark")
    assert violations(page.tab, axe) == []
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_url(re.compile(r"/docs/[\w-]+(#[\w-]+)?$"))
    page.tab.fill("search input", "<img src=x onerror=alert(1)>")
    page.tab.wait_for_selector("search .count:text-is('Nothing found')")


@pytest.mark.slow
@in_both_schemes_and_sizes
def test_the_documentation_is_accessible(
    server: EmbeddedServer, open_page: OpenPage, axe: str, scheme: str, size: tuple[int, int]
) -> None:
    page = open_page(
        f"{server.url}/docs/tasks", color_scheme=scheme, viewport={"width": size[0], "height": size[1]}
    )
    page.tab.fill("search input", "webhook")
    page.tab.wait_for_selector(".found mark")
    assert violations(page.tab, axe) == []
