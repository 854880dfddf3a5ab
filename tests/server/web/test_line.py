"""The page on a line that loses, delays and refuses."""

from typing import Any

import pytest

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import KEY, make_image
from tests.server.support.page import OpenPage, Page
from tests.server.support.page_line import PageLine
from tests.server.support.stepped_device import SteppedDevice

BUSY = {"code": "requestRateLimit", "message": "too much", "retryAfter": 1}


@pytest.fixture
def line() -> PageLine:
    return PageLine()


def test_a_lost_reply_to_the_key_is_noticed(
    server: EmbeddedServer, open_page: OpenPage, line: PageLine
) -> None:
    def install(tab: Any) -> None:
        tab.clock.install()
        line.install(tab)

    line.lose = lambda item: item["taskType"] == "authentication" and len(line.sent) == 1
    page = open_page(server.url, before=install)
    page.sign_in()
    page.until(lambda: len(line.sent) == 1)
    page.tab.clock.run_for(15_000)
    assert "cannot be reached" in page.text("#key-error")
    page.tab.clock.run_for(1_000)
    page.wait("#workspace")


def test_what_the_server_is_too_busy_for_is_sent_again(
    server: EmbeddedServer, open_page: OpenPage, line: PageLine
) -> None:
    kinds = ("imageUpload", "upscale", "modelSearch")
    line.answer = lambda task: (
        BUSY if task["taskType"] in kinds and len(line.of(task["taskType"])) == 1 else None
    )
    page = open_page(server.url, before=line.install)
    page.sign_in()
    page.choose()
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait_for("done")
    for kind in kinds:
        first, second = line.of(kind)
        assert first == second


def test_a_busy_server_signs_nobody_out(server: EmbeddedServer, open_page: OpenPage, line: PageLine) -> None:
    page = open_page(server.url, before=line.install)
    page.sign_in()
    page.wait("#workspace")
    line.answer = lambda task: (
        BUSY if task["taskType"] == "authentication" and len(line.of("authentication")) == 2 else None
    )
    page.tab.reload()
    page.wait("#banner:not(:empty)")
    assert "busy" in page.text("#banner")
    page.wait("#banner", "hidden")
    assert page.tab.is_visible("#workspace")
    assert [task["apiKey"] for task in line.of("authentication")] == [KEY] * 3


def test_a_task_that_waits_is_not_sent_for_the_next_account(
    server: EmbeddedServer, open_page: OpenPage, line: PageLine
) -> None:
    page = open_page(server.url, before=line.install)
    line.answer = lambda task: BUSY if task["taskType"] == "upscale" else None
    page.sign_in()
    page.choose()
    page.add(holiday=make_image(40, 30))
    page.start()
    page.tab.locator("#facts", has_text="busy").wait_for()
    page.tab.once("dialog", lambda dialog: dialog.accept())
    page.tab.click("#sign-out")
    seen = len(line.of("upscale"))
    line.answer = lambda _: None
    page.sign_in()
    page.choose()
    page.add(other=make_image(40, 30, seed=2))
    page.start()
    page.wait_for("done")
    own = line.of("upscale")[seen:]
    page.tab.wait_for_timeout(BUSY["retryAfter"] * 1000)  # what was to be sent then
    assert line.of("upscale")[seen:] == own
    assert len(own) == 1


@pytest.mark.slow
def test_a_tab_that_gets_no_news_shows_the_result_of_the_other(
    under_way: Page, device: SteppedDevice
) -> None:
    page = under_way
    other = page.open_tab()  # which resumes the task: the news go there
    other.wait_for_selector("#model option", state="attached")
    device.run_freely()
    for tab in (page.tab, other):
        tab.wait_for_selector("#strip li[data-status=done]")
        tab.wait_for_selector("#after-pixels img")
        tab.wait_for_selector("#tiles", state="hidden")


@pytest.mark.slow
def test_old_news_of_another_tab_change_nothing(page: Page) -> None:
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait_for("done")
    other = page.open_tab()
    other.wait_for_selector("#strip li[data-status=done]")
    other.evaluate(
        """() => new Promise((resolve) => {
            const opening = indexedDB.open("tilewire");
            opening.onsuccess = () => {
                const asking = opening.result.transaction("tasks").objectStore("tasks").getAll();
                asking.onsuccess = () => {
                    const old = { ...asking.result[0], status: "processing", result: null, revision: 1000 };
                    const channel = new BroadcastChannel("tilewire.tasks");
                    channel.postMessage({ task: old });
                    channel.postMessage({ task: { ...old, id: "new", picture: "new", status: "ready" } });
                    resolve();
                };
            };
        })"""
    )
    page.wait_for("ready")  # the later news
    page.wait_for("done")


def test_the_server_of_a_tab_that_is_closed_is_asked_again(
    start_server: StartServer, device: SteppedDevice, open_page: OpenPage
) -> None:
    page = open_page(start_server().url)
    page.sign_in()
    page.choose(factor=4)
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait_for("processing")
    other = page.open_tab()
    other.wait_for_selector("#strip li[data-status=processing]")
    other.close()
    page.tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    device.run_freely()
    page.wait_for("done")
