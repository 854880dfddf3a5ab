"""The page in a browser, as its users see it."""

import base64
import io
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpcore
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from engines import Seamless
from server.handlers import model_search
from server.protocol.replies import ModelItem
from server.protocol.requests import UpscaleSettings
from server.serving import EmbeddedServer
from server.upscale.creative import creative_diffusion, presets
from server.upscale.pricing import effort
from server.upscale.sizing import Size
from tests.engines.support.tiny_creative import add_tiny_creative
from tests.server.conftest import StartServer
from tests.server.support.denoiser import add_denoiser
from tests.server.support.faces import add_detector, add_restorer
from tests.server.support.harness import KEY, make_image, open_image, upscale
from tests.server.support.page import OpenPage, Page, in_both_schemes_and_sizes, violations
from tests.server.support.process import reserved_port, serving
from tests.server.support.safety_checker import add_checker
from tests.server.support.stepped_device import SteppedDevice

LARGE = (700, 500)
"""Several tiles."""


def differences(one: Image.Image, other: Image.Image) -> npt.NDArray[np.int16]:
    """By how many levels each value differs, (H, W, 3)."""
    pixels = [np.asarray(image.convert("RGB"), dtype=np.int16) for image in (one, other)]
    return np.abs(pixels[0] - pixels[1])


def downloaded(page: Page) -> tuple[str, bytes]:
    """The name and bytes of what the button downloads."""
    with page.tab.expect_download() as download:
        page.tab.click("#download")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_a_wrong_key_is_told_and_the_right_one_is_remembered(
    server: EmbeddedServer, open_page: OpenPage
) -> None:
    page = open_page(server.url)
    page.sign_in("tw_wrong")
    page.wait("#key-error")
    assert "not valid" in page.text("#key-error")
    page.sign_in()
    page.wait("#workspace")
    assert KEY not in page.tab.url
    page.tab.reload()
    page.wait("#workspace")
    page.tab.click("#sign-out")
    page.wait("#sign-in")
    page.tab.reload()
    page.wait("#sign-in")


def test_an_image_becomes_its_enlarged_file_pixel_by_pixel(page: Page) -> None:
    image = make_image(40, 30)
    page.add(holiday=image)
    assert page.text("#estimate") == "80 × 60 pixels"
    page.start()
    page.wait_for("done")
    page.wait("#after-pixels img")
    name, data = downloaded(page)
    assert name == "holiday-2x.png"
    result = open_image(data)
    assert result.size == (80, 60)
    assert differences(page.shown("#after-pixels img"), result).max() == 0
    assert differences(page.shown("#before img"), open_image(image)).max() == 0
    assert "2× PNG" in page.text("#facts")
    assert page.text("#sum") == "1 result"


def test_the_picture_sharpens_tile_by_tile(under_way: Page, device: SteppedDevice) -> None:
    page = under_way
    sharpening = page.shown("#tiles")
    device.run_freely()
    page.wait("#after-pixels img")
    result = page.shown("#after-pixels img")
    assert sharpening.size == result.size == (2800, 2000)
    arrived = np.asarray(sharpening)[:, :, 3] == 255
    assert arrived.any()
    assert not arrived.all()
    assert differences(sharpening, result)[arrived].mean() < 3


def test_the_pixels_of_before_and_after_are_compared_by_keyboard(page: Page) -> None:
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait("#split")
    split = page.tab.locator("#split")
    assert split.get_attribute("aria-valuenow") == "50"
    split.focus()
    for key, value in [("ArrowRight", "52"), ("ArrowLeft", "50"), ("Home", "0"), ("End", "100")]:
        page.tab.keyboard.press(key)
        assert split.get_attribute("aria-valuenow") == value

    def is_covered() -> bool:
        """All of the picture shows what it was before."""
        clip = page.tab.evaluate("document.querySelector('#after').style.clipPath")
        covered = re.fullmatch(r"inset\(0px 0px 0px (.+)px\)", clip)
        picture, stage = (page.tab.locator(name).bounding_box() for name in ("#before", "#stage"))
        right = picture["x"] + picture["width"] - stage["x"]
        return covered is not None and abs(float(covered[1]) - right) <= 1

    page.until(is_covered)


def test_the_picture_is_zoomed_and_moved_by_keyboard_wheel_and_pointer(page: Page) -> None:
    page.add(holiday=make_image(400, 300))
    stage, pixels = page.tab.locator("#stage"), page.tab.locator("#before")
    page.wait("#before img")

    def settled(expected: str) -> None:
        page.tab.locator("#zoom", has_text=expected).wait_for()

    def moved_by(x: int) -> None:
        page.until(lambda: abs(pixels.bounding_box()["x"] - before["x"] - x) <= 1)

    stage.focus()
    page.tab.keyboard.press("1")
    settled("100 %")
    assert pixels.bounding_box()["width"] == pytest.approx(800, abs=0.5), "100 % is that of the result"
    page.tab.keyboard.press("+")
    settled("125 %")
    page.tab.keyboard.press("-")
    settled("100 %")
    page.tab.click("#zoom-in")
    page.tab.click("#zoom-in")
    page.tab.click("#zoom-in")
    settled("338 %")
    before = pixels.bounding_box()
    stage.focus()
    page.tab.keyboard.press("ArrowRight")
    moved_by(-64)
    box = stage.bounding_box()
    page.tab.mouse.move(box["x"] + 100, box["y"] + 100)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + 130, box["y"] + 110)
    page.tab.mouse.up()
    moved_by(-34)
    page.tab.mouse.wheel(0, -400)
    settled("751 %")
    page.tab.keyboard.press("0")
    page.tab.locator("#stage.fitted").wait_for()
    page.tab.mouse.dblclick(box["x"] + 200, box["y"] + 200)
    settled("100 %")


def test_a_task_is_cancelled_and_tried_again(under_way: Page, device: SteppedDevice) -> None:
    page = under_way
    page.tab.click("#cancel")
    page.wait_for("cancelled")
    assert "is charged for the part of the result that was sent" in page.text("#message")
    device.run_freely()
    page.tab.click("#retry")
    page.wait_for("done")
    assert page.tab.locator("#strip li").count() == 1


def test_signing_out_forgets_the_images(page: Page) -> None:
    other = page.open_tab()
    page.add(holiday=make_image(40, 30))
    page.tab.once("dialog", lambda dialog: dialog.dismiss())
    page.tab.click("#sign-out")
    assert page.tab.is_visible("#workspace")
    page.tab.once("dialog", lambda dialog: dialog.accept())
    page.tab.click("#sign-out")
    page.wait("#sign-in")
    other.wait_for_selector("#sign-in")
    page.sign_in()
    page.wait("#empty")
    assert page.tab.locator("#strip li").count() == 0


@pytest.mark.slow
def test_two_images_are_upscaled_at_once(page: Page) -> None:
    page.add(one=make_image(24, 16, seed=1), two=make_image(24, 16, seed=2))
    assert page.text("#start") == "Upscale 2 images"
    page.start()
    page.wait_for("done", 2)
    results = []
    for index in (1, 2):
        page.tab.click(f"#strip li:nth-child({index}) button")
        page.wait("#after-pixels img")
        results.append(downloaded(page))
    assert {name for name, _ in results} == {"one-2x.png", "two-2x.png"}
    assert differences(open_image(results[0][1]), open_image(results[1][1])).max() > 10


def test_a_task_survives_a_crash_of_the_server(
    tmp_path: Path, model_directory: Path, open_page: OpenPage
) -> None:
    with reserved_port() as port:
        with serving(tmp_path, model_directory, port=port) as server:
            page = open_page(server.url)
            page.sign_in()
            page.choose(factor=4)
            page.add(large=make_image(*LARGE))
            page.start()
            page.until(lambda: b"task accepted" in server.logged())
            server.process.kill()
            page.wait("#banner:not(:empty)")
            assert "Reconnecting" in page.text("#banner")
        with serving(tmp_path, model_directory, port=port):
            page.wait_for("done")
            page.wait("#banner", "hidden")
            page.wait("#after-pixels img")
            assert page.shown("#after-pixels img").size == (2800, 2000)
    lost = [line for line in page.complaints if "WebSocket connection" not in line and "ERR_CONN" not in line]
    page.complaints.clear()
    assert lost == []


def test_a_task_survives_a_reload_of_the_page(under_way: Page, device: SteppedDevice) -> None:
    page = under_way
    page.reload()
    page.wait("#strip li")
    device.run_freely()
    page.wait_for("done")
    page.wait("#after-pixels img")
    assert page.tab.locator("#strip li").count() == 1


@pytest.mark.slow
def test_what_is_not_started_survives_a_reload_too(page: Page) -> None:
    page.add(holiday=make_image(40, 30))
    page.reload()
    page.wait_for("ready")
    page.start()
    page.wait_for("done")


def test_another_tab_shows_the_same(page: Page) -> None:
    other = page.open_tab()
    page.add(holiday=make_image(40, 30))
    page.start()
    other.wait_for_selector("#strip li[data-status=done]")
    page.tab.click("#clear")
    other.wait_for_selector("#strip-section", state="hidden")


def test_what_cannot_be_upscaled_is_told_before_it_is_uploaded(
    start_server: StartServer, open_page: OpenPage
) -> None:
    page = open_page(start_server(max_image_bytes=20_000, max_input_megapixels=0.05).url)
    page.sign_in()
    page.wait("#workspace")
    flat = io.BytesIO()
    Image.new("RGB", (300, 200)).save(flat, "PNG")
    refused = {
        "huge.png": (flat.getvalue().ljust(30_000), "too large: 29.3 KB; this server takes up to 19.5 KB"),
        "wide.png": (flat.getvalue(), "too large: 0.06 MP; this server takes up to 0.05 MP"),
        "notes.png": (b"Dear diary", "not an image of a known kind"),
    }
    for name, (data, reason) in refused.items():
        page.tab.set_input_files("#file", [{"name": name, "mimeType": "image/png", "buffer": data}])
        page.tab.locator("#notices", has_text=f"{name}: {reason}").wait_for()
    assert page.tab.locator("#strip li").count() == 0


def test_what_the_server_refuses_is_told_at_the_task(page: Page) -> None:
    page.add(broken=make_image(40, 30)[:200])
    assert page.text("#no-preview") == "No preview"
    page.start()
    page.wait_for("failed")
    assert "truncated or corrupt" in page.text("#message")
    page.tab.click("#remove")
    page.wait("#empty")


def test_images_are_dropped_and_pasted(page: Page) -> None:
    image = base64.b64encode(make_image(40, 30)).decode()
    transfer = """(image) => {
        const bytes = Uint8Array.from(atob(image), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "given.png", { type: "image/png" }));
        return transfer;
    }"""
    for event, property_name in [("drop", "dataTransfer"), ("paste", "clipboardData")]:
        page.tab.evaluate(
            f"""(image) => {{
                const transfer = ({transfer})(image);
                const kind = "{event}" === "drop" ? DragEvent : ClipboardEvent;
                const options = {{ {property_name}: transfer, bubbles: true, cancelable: true }};
                document.body.dispatchEvent(new kind("{event}", options));
            }}""",
            image,
        )
    page.wait_for("ready", 2)


@pytest.mark.slow
def test_an_expired_result_is_marked(page: Page) -> None:
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait_for("done")
    page.until(lambda: page.kept()[0]["result"]["expires"])
    page.tab.clock.set_fixed_time(datetime.now() + timedelta(days=8))
    page.tab.reload()
    page.wait_for("expired")
    assert "expired" in page.text("#message")
    assert not page.tab.is_visible("#download")


def test_sizes_and_settings_come_from_the_model(
    server: EmbeddedServer, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = model_search._describe

    def described(*arguments: Any) -> ModelItem:
        return msgspec.structs.replace(
            describe(*arguments),
            upscale_factors=[2, 4],
            fractional_factors=False,
            parameters=["steps", "colorFix", "positivePrompt", "novelty"],
        )

    monkeypatch.setattr(model_search, "_describe", described)
    page = open_page(server.url)
    page.sign_in()
    page.choose()
    assert page.tab.locator("#sizes").inner_text().split() == ["2×", "4×"]
    page.tab.click(".more summary")
    page.tab.fill("[data-parameter=steps]", "7")
    page.tab.reload()
    page.wait("#parameters")
    assert page.tab.input_value("[data-parameter=steps]") == "7"
    assert page.tab.input_value("#model") == "tilewire:realesr-animevideov3@1"
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait_for("failed")
    assert page.text("#message-text").startswith("Realesr-animevideov3 has no setting 'steps'")


def seams_and_blends(server: EmbeddedServer, image: bytes) -> Image.Image:
    """What the server makes of what the page asks for below."""
    blend = {"model": "realesrgan-x4plus-anime", "visibility": 0.25}
    encoded = base64.b64encode(image).decode()
    task = upscale(encoded, outputType="base64Data", seamless="both", tta=8, blend=blend)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    response = httpcore.request(
        "POST", f"{server.url}/v1", headers=headers, content=msgspec.json.encode(task)
    )
    return open_image(base64.b64decode(msgspec.json.decode(response.content)["data"][0]["imageBase64Data"]))


def test_seams_flips_and_a_second_model_can_be_asked_for(page: Page, server: EmbeddedServer) -> None:
    image = make_image(24, 16)
    page.add(texture=image)
    page.tab.click(".more summary")
    assert page.tab.is_hidden("[data-option=visibility]")
    page.tab.select_option("[data-option=seamless]", "both")
    page.tab.select_option("[data-option=blend]", label="Real-ESRGAN x4plus anime")
    page.tab.fill("[data-option=visibility]", "0.25")
    assert "25 %" in page.text("#option-fields")
    page.tab.check("[data-option=tta]")
    page.start()
    page.wait_for("done")
    made = open_image(downloaded(page)[1])
    assert differences(made, seams_and_blends(server, image)).max() == 0
    page.reload()
    page.wait("#start", "attached")
    page.tab.click(".more summary")
    page.until(lambda: page.tab.locator("[data-option=seamless]").count() == 1)
    assert page.tab.input_value("[data-option=seamless]") == "both"
    assert page.tab.is_checked("[data-option=tta]")
    page.tab.select_option("#model", label="Tilewire latent x2")
    assert page.tab.locator("[data-option=seamless]").count() == 0
    page.tab.click("#code-button")
    assert '"tta": 8' in page.text("#code-panel")


def test_noise_and_faces_can_be_asked_for_where_models_for_them_are_installed(
    start_server: StartServer, open_page: OpenPage, tmp_path: Path
) -> None:
    added = tmp_path / "added"
    add_denoiser(added)
    add_detector(added)
    add_restorer(added, "lighter", lighter=0.4)
    add_restorer(added, "weighed", lighter=0.4, weight=True)
    add_checker(added)
    server = start_server(added_models=added)
    page = open_page(server.url)
    page.sign_in()
    page.add(photo=make_image(40, 30))
    page.tab.click(".more summary")
    shown = {name: f"[data-option={name}]" for name in ("noise", "faces", "faceVisibility", "faceWeight")}
    page.until(lambda: page.tab.locator(shown["faces"]).count() == 1)
    assert page.tab.is_hidden(shown["faceVisibility"])
    page.tab.select_option(shown["faces"], label="lighter")
    assert (page.tab.is_visible(shown["faceVisibility"]), page.tab.is_hidden(shown["faceWeight"])) == (
        True,
        True,
    )
    page.tab.select_option(shown["faces"], label="weighed")
    page.tab.fill(shown["faceVisibility"], "0.8")
    page.tab.fill(shown["faceWeight"], "0.25")
    page.tab.fill(shown["noise"], "12.5")
    page.start()
    page.wait_for("done")
    page.tab.click("#code-button")
    code = "".join(page.text("#code-panel").split())
    for part in ('"strength":12.5', '"visibility":0.8', '"weight":0.25', '"model":"local:weighed@1"'):
        assert part in code
    page.tab.click("#code-close")
    red = io.BytesIO()
    Image.new("RGB", (24, 16), "#f00000").save(red, "PNG")
    page.add(red=red.getvalue())
    page.tab.select_option("[data-option=safety]", label="Refuse, at no cost")
    page.start()
    page.wait_for("failed")
    assert "not be safe for work" in page.text("#message-text")


def test_the_page_reckons_a_creative_upscale_as_the_server_does(page: Page, tmp_path: Path) -> None:
    """Steps, passes, refinements, guidance, and windows of several sizes, over edges that meet as well."""
    model = add_tiny_creative(tmp_path)
    described = {
        "air": "a", "defaultSteps": 20, "presets": presets(), "upscaleFactors": [2],
        "windows": msgspec.to_builtins(model_search.windows_of(model)),
    }  # fmt: skip
    cases: list[tuple[int, int, int, dict[str, Any], Seamless | None]] = [
        (40, 24, 2, {}, None),
        (300, 210, 2, {"fractality": 80, "refinementSteps": 2, "creativityDecay": 90}, None),
        (300, 210, 4, {"steps": 31, "creativity": 70, "promptFidelity": 0}, "x"),
        (130, 500, 3, {"preset": "creative", "fractality": 0}, "both"),
    ]
    for width, height, factor, settings, seamless in cases:
        diffusion = creative_diffusion(msgspec.convert(settings, UpscaleSettings), model.creative, 1)
        source, size = Size(width, height), Size(factor * width, factor * height)
        options = {"seamless": seamless} if seamless else {}
        wanted = {"model": "a", "factor": factor, "parameters": settings, "options": options}
        found = page.tab.evaluate(
            """async ([path, source, settings, model]) => {
                const { effort } = await import(new URL(path, location.href).href);
                return effort(source, settings, model);
            }""",
            [page.module("estimate"), {"width": width, "height": height}, wanted, described],
        )
        expected = effort(model, source, size, diffusion=diffusion, seamless=seamless)
        assert found == pytest.approx(float(expected))


@pytest.mark.slow
def test_what_it_should_take_is_learnt_step_by_step(page: Page) -> None:
    """Two passes of x4, of 2 s a megapixel; and a restorer of which nothing is known at first."""
    before, after = page.tab.evaluate(
        """async (path) => {
            const { Pace } = await import(new URL(path, location.href).href);
            const a = { air: "a", upscaleFactors: [2, 4], secondsPerMegapixel: 2 };
            const models = { a, f: { air: "f" } };
            const pace = new Pace((air) => models[air]);
            const options = { faceRestoration: { model: "f", visibility: 1 } };
            const settings = { model: "a", factor: 8, targetMegapixels: null, parameters: {}, options };
            const task = { width: 500, height: 500, settings };
            const before = pace.estimate(task);
            pace.learn({ ...task, started: 0, finished: 1000 * (before.seconds + 7) });
            return [before, pace.estimate(task)];
        }""",
        page.module("pace"),
    )
    upscale_alone = 2 * (16 + 1)  # million pixels of both passes
    assert before == {"seconds": upscale_alone, "more": True}
    assert after == {"seconds": upscale_alone + 7, "more": False}


@pytest.mark.slow
def test_fractions_and_megapixels_can_be_asked_for(page: Page) -> None:
    page.add(holiday=make_image(400, 300))
    page.tab.check("input[name=size][value=other]", force=True)
    page.tab.fill("#size-amount", "1.5")
    assert page.text("#estimate").startswith("600 × 450 pixels")
    page.tab.select_option("#size-way", "megapixels")
    page.tab.fill("#size-amount", "99")
    assert "more than 16 times" in page.text("#estimate")
    assert page.tab.is_disabled("#start")
    page.tab.fill("#size-amount", "0.48")
    page.start()
    page.wait_for("done")
    page.wait("#after-pixels img")
    assert page.shown("#after-pixels img").size == (800, 600)


@pytest.mark.slow
def test_the_theme_can_be_switched_and_is_remembered(server: EmbeddedServer, open_page: OpenPage) -> None:
    page = open_page(server.url, color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.tab.evaluate(ground)
    page.tab.click("#theme")
    light = page.tab.evaluate(ground)
    assert dark != light
    page.tab.reload()
    assert page.tab.evaluate(ground) == light


@in_both_schemes_and_sizes
def test_the_page_is_accessible(
    server: EmbeddedServer, open_page: OpenPage, axe: str, scheme: str, size: tuple[int, int]
) -> None:
    width, height = size
    page = open_page(server.url, color_scheme=scheme, viewport={"width": width, "height": height})

    def check(state: str) -> None:
        assert violations(page.tab, axe) == [], state

    page.wait("#sign-in-button")
    check("signing in")
    page.sign_in()
    page.choose()
    check("nothing yet")
    page.add(holiday=make_image(40, 30), broken=make_image(40, 30)[:200])
    check("ready")
    page.start()
    page.wait_for("done")
    page.wait_for("failed")
    page.wait("#split")
    check("a result")
    page.tab.click(".more summary")
    page.choose(factor=4)
    page.tab.click("#strip li[data-status=done] button")
    page.start()
    page.tab.locator("#sum", has_text="2 results").wait_for()
    page.tab.check("input[name=size][value=other]", force=True)
    page.tab.fill("#size-amount", "0")
    check("two results, and a number that makes no sense")
    page.tab.click("#code-button")
    check("as code")
