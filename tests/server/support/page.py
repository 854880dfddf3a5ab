"""The page in Chromium, used as people use it. Skipped where Chromium or Playwright is not installed."""

import base64
import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from tests.server.support.harness import KEY, open_image

PATIENCE_MS = 120_000
_NAMES = ("chromium", "chromium-browser", "google-chrome")

OpenPage = Callable[..., "Page"]

_DESKTOP, _PHONE = (1280, 800), (390, 844)
in_both_schemes_and_sizes = pytest.mark.parametrize(
    ("scheme", "size"),
    [
        pytest.param("light", _DESKTOP, id="light-desktop"),
        pytest.param("dark", _PHONE, id="dark-phone"),
        pytest.param("light", _PHONE, id="light-phone", marks=pytest.mark.slow),
        pytest.param("dark", _DESKTOP, id="dark-desktop", marks=pytest.mark.slow),
    ],
)
"""Each colour scheme and each size at least once; in all pairs with the slow tests."""


@contextmanager
def running_browser() -> Iterator[Any]:
    """A browser for many pages."""
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if importlib.util.find_spec("playwright") is None or executable is None:
        pytest.skip("the page is not tested in a browser: playwright or chromium is not installed")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may not be installed

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments, timeout=PATIENCE_MS)
        try:
            yield browser
        finally:
            browser.close()


class Page:
    """The page, in a browser profile of its own.

    Attributes:
        tab: Playwright's page.
        complaints: errors in the console, violations of the content security policy among them.
    """

    def __init__(self, context: Any, url: str, before: Callable[[Any], None] | None = None) -> None:
        """
        Args:
            before: is given each tab before anything is loaded into it.
        """
        self.context = context
        self.url = url
        self.complaints: list[str] = []
        self._before = before
        self.tab = self.open_tab()

    def open_tab(self) -> Any:
        tab = self.context.new_page()
        if self._before is not None:
            self._before(tab)
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        tab.goto(self.url)
        return tab

    def reload(self) -> None:
        """Reload once all is kept that is to survive it."""
        self.kept()
        self.tab.reload()

    def kept(self) -> list[dict[str, Any]]:
        """The tasks in the browser's database, after all that was put there so far."""
        kept: list[dict[str, Any]] = self.tab.evaluate(
            """() => new Promise((resolve, reject) => {
                const opening = indexedDB.open("tilewire");
                opening.onerror = () => reject(opening.error);
                opening.onsuccess = () => {
                    const database = opening.result;
                    const asking = database.transaction("tasks").objectStore("tasks").getAll();
                    asking.onerror = () => reject(asking.error);
                    asking.onsuccess = () => {
                        database.close();
                        resolve(asking.result.map(({ status, result }) => ({ status, result })));
                    };
                };
            })"""
        )
        return kept

    def module(self, name: str) -> str:
        """The address of one of the page's modules."""
        address: str = self.tab.get_attribute(f"link[href$='/{name}.js']", "href")
        return f"./{address}"

    def sign_in(self, key: str = KEY) -> None:
        self.tab.fill("#key", key)
        self.tab.click("#sign-in-button")

    def add(self, **images: bytes) -> None:
        """Choose files, named like the keywords, and wait until they are ready to be started."""
        files = [
            {"name": f"{name}.png", "mimeType": "image/png", "buffer": data} for name, data in images.items()
        ]
        self.wait("#workspace")  # before one has signed in no files are taken
        before = self.tab.locator("#strip li").count()
        self.tab.set_input_files("#file", files)
        self.wait(f"#strip li:nth-child({before + len(images)})")

    def choose(self, model: str = "Real-ESRGAN animevideo v3", factor: int = 2) -> None:
        """Choose a model and a factor, and PNG."""
        self.wait("#model option", "attached")
        self.tab.select_option("#model", label=model)
        self.tab.check(f"input[name=size][value='{factor}']", force=True)
        self.tab.check("input[name=format][value=PNG]", force=True)

    def start(self) -> None:
        self.tab.click("#start")

    def wait(self, selector: str, state: str = "visible") -> None:
        self.tab.wait_for_selector(selector, state=state)

    def wait_for(self, status: str, count: int = 1) -> None:
        """Wait until so many images have this status."""
        self.wait(f":nth-match(#strip li[data-status={status}], {count})", "attached")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that no selector tells."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.tab.wait_for_timeout(20)

    def text(self, selector: str) -> str:
        text: str = self.tab.inner_text(selector)
        return text

    def shown(self, selector: str) -> Image.Image:
        """The pixels of an image or canvas, at their own size."""
        # The locator waits for one that is just being replaced, `decode` for its pixels.
        url = self.tab.locator(selector).first.evaluate(
            """async (source) => {
                await source.decode?.();
                const canvas = document.createElement("canvas");
                canvas.width = source.naturalWidth ?? source.width;
                canvas.height = source.naturalHeight ?? source.height;
                canvas.getContext("2d").drawImage(source, 0, 0);
                return canvas.toDataURL("image/png");
            }"""
        )
        return open_image(base64.b64decode(url.partition(",")[2]))


def violations(tab: Any, axe: str) -> list[tuple[str, list[Any]]]:
    """What makes a page hard to use for some, by axe: the rules that it breaks, and where."""
    tab.evaluate(axe)
    found = tab.evaluate("axe.run()")["violations"]
    return [(each["id"], [node["target"] for node in each["nodes"]]) for each in found]
