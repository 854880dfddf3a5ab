"""The page in browsers that keep nothing, have no room, or have kept something damaged."""

from pathlib import Path

import pytest

from server.serving import EmbeddedServer
from tests.server.support.harness import make_image, open_image
from tests.server.support.page import OpenPage, Page

FORBIDDEN = """
    const deny = { get() { throw new DOMException("denied", "SecurityError"); } };
    for (const name of ["localStorage", "indexedDB", "BroadcastChannel"]) {
        Object.defineProperty(window, name, deny);
    }
    Object.defineProperty(Navigator.prototype, "serviceWorker", deny);
"""
FULL = """
    const deny = () => { throw new DOMException("full", "QuotaExceededError"); };
    Storage.prototype.setItem = IDBObjectStore.prototype.put = deny;
"""


@pytest.mark.parametrize(
    ("script", "word"), [(FORBIDDEN, "does not let"), pytest.param(FULL, "no room", marks=pytest.mark.slow)]
)
def test_the_page_works_where_nothing_can_be_kept(
    server: EmbeddedServer, open_page: OpenPage, script: str, word: str
) -> None:
    page = open_page(server.url, before=lambda tab: tab.add_init_script(script))
    page.sign_in()
    page.choose()
    page.tab.locator("#notices", has_text=word).wait_for()
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait_for("done")
    page.wait("#after-pixels img")
    with page.tab.expect_download() as download:
        page.tab.click("#download")
    assert open_image(Path(download.value.path()).read_bytes()).size == (80, 60)
    page.tab.click("#theme")
    page.tab.click("#code-button")
    page.tab.click("#code-tabs button:text-is('Python')")
    page.tab.click("#code-close")
    page.tab.click("#clear")
    page.wait("#empty")


DAMAGED = [
    "{", "null", "[]", '{"parameters": null, "amount": "x", "size": 7, "format": "GIF", "quality": -1}',
]  # fmt: skip


def test_what_is_damaged_is_left_out(page: Page) -> None:
    page.add(holiday=make_image(40, 30))
    page.kept()
    page.tab.evaluate(
        """() => new Promise((resolve) => {
            const opening = indexedDB.open("tilewire");
            opening.onsuccess = () => {
                const transaction = opening.result.transaction("tasks", "readwrite");
                const store = transaction.objectStore("tasks");
                store.put({ id: "nothing" });
                store.put({ id: 7, name: "x", created: 1, status: "ready" });
                store.put({ id: "done", name: "x", created: 1, status: "done", settings: {}, result: null });
                transaction.oncomplete = () => { opening.result.close(); resolve(); };
            };
        })"""
    )
    for damaged in DAMAGED:
        page.tab.evaluate(
            """(damaged) => {
                for (const name of ["settings", "pace"]) localStorage.setItem(`tilewire.${name}`, damaged);
            }""",
            damaged,
        )
        page.tab.reload()
        page.wait_for("ready")
        page.wait("#model option", "attached")
        assert page.tab.locator("#strip li").count() == 1
    page.choose()
    page.start()
    page.wait_for("done")


def test_the_rest_of_a_folder_is_taken_where_one_file_cannot_be_read(page: Page) -> None:
    image = list(make_image(40, 30))
    page.tab.evaluate(
        """(image) => {
            const fail = () => Promise.reject(new DOMException("gone", "NotReadableError"));
            const good = new File([Uint8Array.from(image)], "good.png", { type: "image/png" });
            const broken = new File(["x"], "broken.png");
            broken.slice = () => ({ arrayBuffer: fail });
            const entry = (name, file) => ({ name, isFile: true, isDirectory: false, file });
            let rest = [
                entry("gone.png", (take, refuse) => fail().catch(refuse)),
                entry("good.png", (take) => take(good)),
                entry("broken.png", (take) => take(broken)),
            ];
            const readEntries = (take) => { take(rest); rest = []; };
            const reader = () => ({ readEntries });
            const folder = { name: "folder", isFile: false, isDirectory: true, createReader: reader };
            const event = new DragEvent("drop", { bubbles: true, cancelable: true });
            const items = [{ webkitGetAsEntry: () => folder }];
            const transfer = { types: ["Files"], files: [good], items };
            Object.defineProperty(event, "dataTransfer", { value: transfer });
            document.body.dispatchEvent(event);
        }""",
        image,
    )
    page.wait_for("ready")
    for name in ("gone.png", "broken.png"):
        page.tab.locator("#notices", has_text=f"{name}: this file cannot be read").wait_for()
    assert page.tab.locator("#strip li").count() == 1
