"""The page in a browser; it complains of nothing while it is tested."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.firefox import Firefox, running_firefox
from tests.server.support.harness import make_image
from tests.server.support.npm import npm_install
from tests.server.support.page import OpenPage, Page, running_browser
from tests.server.support.stepped_device import SteppedDevice

LARGE = (700, 500)
"""Several tiles."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def firefox() -> Iterator[Firefox]:
    with running_firefox() as firefox:
        yield firefox


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens the page of a server. At the end nothing may have complained in the console."""
    pages = []

    def open_page(url: str, *, before: Callable[[Any], None] | None = None, **options: Any) -> Page:
        # Nothing moves by itself: what is under way is not what a test looks at.
        pages.append(Page(browser.new_context(reduced_motion="reduce", **options), url, before))
        return pages[-1]

    yield open_page
    for page in pages:
        page.context.close()
        assert page.complaints == []


@pytest.fixture
def page(server: EmbeddedServer, open_page: OpenPage) -> Page:
    """The page, signed in, with a fast model chosen."""
    page = open_page(server.url)
    page.sign_in()
    page.choose()
    return page


@pytest.fixture
def under_way(device: SteppedDevice, start_server: StartServer, open_page: OpenPage) -> Page:
    """The page with a picture of which the first tiles came. The others wait for `device.run_freely`."""
    page = open_page(start_server().url)
    page.sign_in()
    page.choose(factor=4)
    page.add(large=make_image(*LARGE))
    page.start()
    device.step()
    page.wait("#tiles")
    return page


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("axe")
    npm_install(directory, "axe-core@4")
    return (directory / "node_modules/axe-core/axe.min.js").read_text("utf-8")
