"""From one result to the next: other settings, comparison, undoing, saving."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import make_image, open_image
from tests.server.support.page import OpenPage, Page
from tests.server.support.stepped_device import SteppedDevice


def versions(page: Page) -> list[str]:
    """The results of the selected picture."""
    names: list[str] = page.tab.locator("#version-list button").all_inner_texts()
    return names


def test_one_picture_is_upscaled_with_other_settings_and_its_results_are_compared(page: Page) -> None:
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait_for("done")
    assert page.text("#start") == "Upscale again"
    assert page.tab.is_disabled("#start")
    assert "Already done" in page.text("#estimate")
    page.choose(factor=4)
    page.start()
    page.wait("#version-list li:nth-child(2) [aria-current][data-status=done]")
    assert versions(page) == ["animevideo v3 2×", "animevideo v3 4×"]
    assert page.tab.locator("#strip li").count() == 1
    page.until(lambda: page.shown("#after-pixels img").size == (160, 120))
    page.tab.select_option("#against", label="animevideo v3 2×")
    page.until(lambda: page.shown("#before img").size == (80, 60))
    assert page.tab.locator("#split .tag").all_inner_texts() == ["animevideo v3 2×", "animevideo v3 4×"]
    page.tab.click("#version-list li:nth-child(1) button")
    page.until(lambda: page.shown("#after-pixels img").size == (80, 60))
    page.until(lambda: page.shown("#before img").size == (40, 30))
    page.reload()
    page.wait("#version-list li:nth-child(2)")


@pytest.mark.slow
def test_all_pictures_are_upscaled_with_other_settings(page: Page) -> None:
    page.add(one=make_image(24, 16, seed=1), two=make_image(24, 16, seed=2))
    page.start()
    page.wait_for("done", 2)
    page.choose(factor=3)
    assert page.text("#start-all") == "Upscale all 2 images"
    page.tab.click("#start-all")
    page.tab.locator("#sum", has_text="4 results").wait_for()
    assert page.tab.locator("#strip li").count() == 2


@pytest.mark.slow
def test_a_failed_task_is_tried_again_with_the_settings_of_now(
    start_server: StartServer, open_page: OpenPage
) -> None:
    page = open_page(start_server(max_output_megapixels=0.01).url)
    page.sign_in()
    page.choose(factor=4)
    page.add(holiday=make_image(40, 30)[:-30])  # which this browser cannot measure
    page.start()
    page.wait_for("failed")
    page.choose(factor=2)
    page.tab.keyboard.press("Control+Enter")
    page.wait_for("failed")
    page.until(lambda: [task["status"] for task in page.kept()] == ["failed"])


def test_results_are_saved_as_one_archive(page: Page) -> None:
    page.tab.evaluate("delete window.showSaveFilePicker")
    page.add(holiday=make_image(40, 30, seed=1))
    page.add(holiday=make_image(40, 30, seed=2))
    page.start()
    page.wait_for("done", 2)
    with page.tab.expect_download() as download:
        page.tab.click("#download-all")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["holiday-2x.png", "holiday-2x (2).png"]
        pictures = [archive.read(name) for name in archive.namelist()]
    assert [open_image(picture).size for picture in pictures] == [(80, 60)] * 2
    assert pictures[0] != pictures[1]


@pytest.mark.slow
def test_an_archive_is_written_straight_into_a_file(page: Page) -> None:
    page.tab.evaluate(
        """async () => {
            const root = await navigator.storage.getDirectory();
            const create = { create: true };
            window.showSaveFilePicker = ({ suggestedName }) => root.getFileHandle(suggestedName, create);
        }"""
    )
    page.add(one=make_image(40, 30, seed=1), two=make_image(40, 30, seed=2))
    page.start()
    page.wait_for("done", 2)
    page.tab.click("#download-all")
    page.tab.locator("#notices", has_text="Saved 2 results").wait_for()
    data = page.tab.evaluate(
        """async () => {
            const handle = await (await navigator.storage.getDirectory()).getFileHandle("upscaled.zip");
            return [...new Uint8Array(await (await handle.getFile()).arrayBuffer())];
        }"""
    )
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["one-2x.png", "two-2x.png"]


def test_results_are_saved_into_a_folder_and_overwrite_nothing(page: Page) -> None:
    page.tab.evaluate(
        """async () => {
            const root = await navigator.storage.getDirectory();
            const folder = await root.getDirectoryHandle("mine", { create: true });
            const file = await (await folder.getFileHandle("One-2x.png", { create: true })).createWritable();
            await file.write("mine");
            await file.close();
            window.showDirectoryPicker = async () => folder;
        }"""
    )
    page.add(one=make_image(40, 30, seed=1), two=make_image(40, 30, seed=2))
    page.start()
    page.wait_for("done", 2)
    page.tab.click("#save-all")
    page.tab.locator("#notices", has_text="Saved 2 results").wait_for()
    sizes = page.tab.evaluate(
        """async () => {
            const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("mine");
            const found = {};
            for await (const [name, handle] of folder.entries()) {
                const file = await handle.getFile();
                found[name] = file.size > 4 ? (await createImageBitmap(file)).width : 0;
            }
            return found;
        }"""
    )
    assert sizes == {"One-2x.png": 0, "one-2x (2).png": 80, "two-2x.png": 80}


def test_a_task_that_is_tried_again_in_the_same_way_is_the_same_task(
    under_way: Page, device: SteppedDevice
) -> None:
    def ids() -> list[str]:
        return list(
            under_way.tab.evaluate(
                """() => new Promise((resolve) => {
                const opening = indexedDB.open("tilewire");
                opening.onsuccess = () => {
                    const asking = opening.result.transaction("tasks").objectStore("tasks").getAllKeys();
                    asking.onsuccess = () => resolve(asking.result);
                };
            })"""
            )
        )

    before = ids()
    under_way.tab.click("#cancel")
    under_way.wait_for("cancelled")
    under_way.tab.click("#retry")
    device.run_freely()
    under_way.wait_for("done")
    assert ids() == before
    assert under_way.tab.is_hidden("#message")


def test_what_was_removed_comes_back(page: Page) -> None:
    page.add(one=make_image(24, 16, seed=1), two=make_image(24, 16, seed=2))
    page.tab.click("#clear")
    page.wait("#empty")
    assert page.tab.evaluate("document.activeElement.textContent") == "Choose images"
    page.tab.click("#notices button:text-is('Undo')")
    page.wait_for("ready", 2)
    page.tab.focus("#strip li:nth-child(1) button")
    page.tab.keyboard.press("ArrowRight")
    assert page.text("#name") == "two.png"
    page.tab.keyboard.press("Delete")
    assert page.tab.locator("#strip li").count() == 1
    assert page.tab.evaluate("document.activeElement.title") == "one.png"
    page.tab.click("#notices button:text-is('Undo')")
    page.wait_for("ready", 2)
    assert page.text("#name") == "two.png"
    page.kept()
    page.reload()
    page.wait_for("ready", 2)


@pytest.mark.slow
def test_more_results_than_fit_a_screen_are_all_kept(page: Page) -> None:
    """Two hundred pictures: none goes by itself."""
    page.add(holiday=make_image(24, 16))
    page.start()
    page.wait_for("done")
    page.tab.evaluate(
        """() => new Promise((resolve) => {
            const opening = indexedDB.open("tilewire");
            opening.onsuccess = () => {
                const transaction = opening.result.transaction("tasks", "readwrite");
                const store = transaction.objectStore("tasks");
                const asking = store.getAll();
                asking.onsuccess = () => {
                    const [task] = asking.result;
                    for (let count = 0; count < 200; count++) {
                        store.put({ ...task, id: `${count}`, picture: `${count}`, created: count + 1 });
                    }
                };
                transaction.oncomplete = () => { opening.result.close(); resolve(); };
            };
        })"""
    )
    page.tab.reload()
    page.wait_for("done", 201)
    page.add(another=make_image(24, 16, seed=2))
    page.start()
    page.wait_for("done", 202)


def test_a_spot_is_tried_before_the_whole(page: Page) -> None:
    page.add(holiday=make_image(400, 300))
    page.wait("#before img")
    page.tab.click("#try-spot")
    page.wait(".spot")
    spot = page.shown(".spot")
    assert spot.size == (384, 384)
    whole = page.tab.locator("#after-pixels").bounding_box()
    box = page.tab.locator(".spot").bounding_box()
    assert box["width"] / whole["width"] == pytest.approx(192 / 400, abs=0.01)
    assert page.tab.locator("#strip li[data-status=ready]").count() == 1
    page.tab.locator("#notices", has_text="This spot: Real-ESRGAN animevideo v3 2×").wait_for()
    page.choose(factor=3)
    page.wait(".spot", "detached")


def test_where_a_task_stands_is_said_while_it_waits_and_runs(
    device: SteppedDevice, start_server: StartServer, open_page: OpenPage
) -> None:
    page = open_page(start_server().url)
    page.sign_in()
    page.choose(factor=4)
    page.add(**{name: make_image(40, 30, seed=seed) for seed, name in enumerate("abc")})
    page.start()
    page.tab.locator("#strip .badge", has_text="in line").first.wait_for()
    assert page.tab.title().startswith("0 % · ")
    device.run_freely()
    page.wait_for("done", 3)
    page.until(lambda: page.tab.title() == "Tilewire")
    assert page.text("#facts").startswith("40 × 30 → 160 × 120 · 4× PNG · ")
    page.tab.locator("#facts", has_text=" s").wait_for()


def test_another_result_can_be_started_while_one_is_made(under_way: Page, device: SteppedDevice) -> None:
    page = under_way
    assert page.tab.is_disabled("#start")
    assert page.text("#estimate").startswith("In progress.")
    page.tab.check("input[name=format][value=WEBP]", force=True)
    page.start()
    page.wait("#version-list li:nth-child(2)")
    device.run_freely()
    page.wait(":nth-match(#version-list [data-status=done], 2)")
    assert versions(page) == ["animevideo v3 4× PNG", "animevideo v3 4× WebP"]


@pytest.mark.slow
def test_all_is_said_to_who_looks_elsewhere(server: EmbeddedServer, open_page: OpenPage) -> None:
    shown = """
        window.shown = [];
        window.Notification = class { constructor(title, options) { shown.push(options.body); } };
        Notification.permission = "granted";
        Object.defineProperty(document, "hidden", { get: () => window.away ?? false });
    """
    page = open_page(server.url, before=lambda tab: tab.add_init_script(shown))
    page.sign_in()
    page.choose()
    page.add(one=make_image(24, 16, seed=1), two=make_image(24, 16, seed=2))
    page.tab.evaluate("window.away = true")
    page.start()
    page.wait_for("done", 2)
    page.until(lambda: page.tab.evaluate("shown") == ["2 images upscaled"])
    assert page.tab.title() == "✓ 2 done · Tilewire"


def test_transparency_is_shown_kept_and_its_loss_announced(page: Page) -> None:
    picture = Image.new("RGBA", (60, 40), (200, 30, 30, 255))
    picture.paste((0, 0, 0, 0), (10, 10, 30, 30))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True)
    page.tab.set_input_files(
        "#file", [{"name": "logo.webp", "mimeType": "image/webp", "buffer": buffer.getvalue()}]
    )
    page.wait_for("ready")
    page.wait("#checkerboard")
    page.tab.check("input[name=format][value=JPG]", force=True)
    assert page.text("#format-warning").startswith("JPEG has no transparency: logo.webp")
    page.tab.check("input[name=format][value=INPUT]", force=True)
    page.wait("#format-warning", "hidden")
    page.start()
    page.wait_for("done")
    page.wait("#after-pixels img")
    assert page.text("#facts").find("WebP") > 0
    assert page.shown("#after-pixels img").getpixel((40, 40))[3] == 0


@pytest.mark.slow
def test_pixels_are_seen_with_edges_where_they_are_larger_than_those_of_the_screen(page: Page) -> None:
    page.add(holiday=make_image(40, 30))
    page.wait("#before img")
    page.tab.click("#zoom-actual")
    page.wait("#pixels", "hidden")
    page.tab.click("#zoom-in")
    page.tab.click("#pixels")
    rendering = "getComputedStyle(document.querySelector('#before img')).imageRendering"
    page.until(lambda: page.tab.evaluate(rendering) == "pixelated")
    page.tab.click("#zoom-actual")
    page.until(lambda: page.tab.evaluate(rendering) == "auto")


@pytest.mark.slow
def test_camera_data_is_kept_if_it_is_wanted(page: Page) -> None:
    exif = Image.Exif()
    exif[0x010E] = "At the lake"
    buffer = io.BytesIO()
    open_image(make_image(40, 30)).convert("RGB").save(buffer, "JPEG", exif=exif)
    files: list[dict[str, Any]] = [
        {"name": "lake.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()}
    ]
    page.tab.set_input_files("#file", files)
    page.wait_for("ready")
    page.tab.check("input[name=format][value=INPUT]", force=True)
    page.tab.click(".more summary")
    page.tab.check("#metadata")
    page.start()
    page.wait_for("done")
    with page.tab.expect_download() as download:
        page.tab.click("#download")
    with Image.open(Path(download.value.path())) as result:
        assert result.format == "JPEG"
        assert result.getexif()[0x010E] == "At the lake"
