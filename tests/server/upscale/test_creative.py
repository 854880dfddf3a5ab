"""The creative upscaler through a server: its settings, what they cost, and what is refused."""

import base64
import io
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

from engines import PRESETS
from server.serving import EmbeddedServer
from server.state import tables
from server.upscale.pricing import price
from server.upscale.sizing import Size
from tests.engines.support.tiny_creative import add_tiny_creative
from tests.server.conftest import settings_for
from tests.server.support.ask import ask
from tests.server.support.harness import connected, make_image, new_uuid, open_account, open_image
from tests.server.support.web import Web

MODEL = "runware:500@1"
FAST = {"steps": 2, "enlarger": "lanczos"}
IMAGE = base64.b64encode(make_image(40, 24)).decode()
PER_MEGAPIXEL = Decimal("0.01")


def task(settings: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    wanted = {"model": MODEL, "inputImage": IMAGE, "settings": FAST | (settings or {})}
    kind = {"taskType": "upscale", "taskUUID": new_uuid(), "outputFormat": "PNG", "outputType": "base64Data"}
    return kind | wanted | more


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[EmbeddedServer]:
    data = tmp_path_factory.mktemp("creative")
    add_tiny_creative(data / "added", style=True)
    settings = settings_for(data, model_directory, added_models=data / "added", private_networks=True)
    with EmbeddedServer(settings) as running:
        yield running


async def test_a_picture_is_doubled_unless_a_size_is_given_and_the_seed_makes_it_again(
    server: EmbeddedServer,
) -> None:
    async with connected(server) as peer:
        (first,) = await peer.ask(task())
        (again,) = await peer.ask(task({"seed": first["seed"]}))
        (larger,) = await peer.ask(task(upscaleFactor=3.5))
        (same,) = await peer.ask(task(upscaleFactor=1, seamless="x"))
    sizes = [open_image(base64.b64decode(each["imageBase64Data"])).size for each in (first, larger, same)]
    assert sizes == [(80, 48), (140, 84), (40, 24)]
    assert 0 <= first["seed"] < 2**31
    assert again["imageBase64Data"] == first["imageBase64Data"]


async def test_every_setting_is_taken_and_matters(server: EmbeddedServer) -> None:
    base: dict[str, Any] = {"seed": 5, "steps": 6, "strength": 0.7, "CFGScale": 3, "colorFix": False}
    changes: list[dict[str, Any]] = [
        {}, {"seed": 6}, {"steps": 5}, {"strength": 0.4}, {"CFGScale": 4.5}, {"positivePrompt": "ugly"},
        {"negativePrompt": "ugly"}, {"scheduler": "Euler a"}, {"controlNetWeight": 0.3}, {"clipSkip": 2},
        {"colorFix": "adain"}, {"colorFix": True}, {"preset": "creative"}, {"style": "anime"},
        {"overrideEmbeddings": True}, {"hallucination": 60}, {"imageFidelity": 20}, {"detailsLevel": 50},
        {"refinementSteps": 1}, {"enlarger": "realesr-animevideov3"},
    ]  # fmt: skip
    async with connected(server) as peer:
        results = await peer.ask(*(task(base | change) for change in changes))
        (default,) = await peer.ask(task(base | {"tileDiffusion": True, "preset": "balanced"}))
        turned = [{}, {"creativity": 90}, {"promptFidelity": 90}]
        freer = await peer.ask(*(task({"seed": 5, "steps": 6, "colorFix": False} | each) for each in turned))
        decays = [{"creativityDecay": each} for each in (0, 100)]
        decayed = await peer.ask(*(task(base | each, upscaleFactor=4) for each in decays))
    images = [result["imageBase64Data"] for result in results]
    alike = [change for change, image in zip(changes, images, strict=True) if images.count(image) > 1]
    assert alike == []
    assert default["imageBase64Data"] == images[0]
    for different in (freer, decayed):
        assert len({result["imageBase64Data"] for result in different}) == len(different)


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"tileDiffusion": False}, "unsupportedSettingsTileDiffusion", "in windows"),
        ({"clipSkip": 3}, "invalidSettingsClipSkip", "0 to 2"),
        ({"strength": 0.5, "creativity": 40}, "invalidSettingsStrength", "not both"),
        ({"CFGScale": 5, "promptFidelity": 40}, "invalidSettingsCFGScale", "not both"),
        ({"controlNetWeight": 1, "imageFidelity": 40}, "invalidSettingsControlNetWeight", "not both"),
        ({"tileStyle": True}, "invalidSettingsTileStyle", "styleImages"),
        ({"styleImages": "no such thing"}, "invalidSettingsStyleImages", "neither a UUID nor a URL"),
        ({"styleImages": [new_uuid()]}, "imageNotFound", "no image"),
        ({"styleImages": []}, "invalidSettingsStyleImages", ""),
        ({"enlarger": "clarity"}, "invalidSettingsEnlarger", "one network"),
        ({"enlarger": "nothing"}, "invalidSettingsEnlarger", "nothing"),
        ({"refinementSteps": 5}, "invalidSettingsRefinementSteps", ""),
        ({"detailsLevel": 51}, "invalidSettingsDetailsLevel", ""),
        ({"preset": "wild"}, "invalidSettingsPreset", "wild"),
        ({"noiseLevel": 3}, "unsupportedSettingsNoiseLevel", "noiseLevel"),
    ],
)
async def test_what_makes_no_sense_is_one_error(
    server: EmbeddedServer, settings: dict[str, Any], code: str, words: str
) -> None:
    async with connected(server) as peer:
        (error,) = await peer.ask(task(settings))
    assert error["code"] == code
    assert words in error["message"]


async def test_other_models_name_the_command_that_makes_a_creative_one(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (error,) = await peer.ask(
            task(model="realesr-animevideov3") | {"settings": {"creativity": 40}, "outputType": "URL"}
        )
    assert error["code"] == "unsupportedSettingsCreativity"
    assert "tilewire models export" in error["message"]


async def test_a_style_image_is_an_upload_and_matters_by_its_fidelity(server: EmbeddedServer) -> None:
    base = {"seed": 5, "steps": 4, "strength": 1, "colorFix": False}
    async with connected(server) as peer:
        image = base64.b64encode(make_image(30, 60)).decode()
        (upload,) = await peer.ask({"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image})
        style = upload["imageUUID"]
        styles: list[dict[str, Any]] = [
            {}, {"styleImages": style}, {"styleImages": [style], "styleImagesFidelity": 100},
            {"styleImages": [style], "tileStyle": True}, {"styleImages": [style], "styleImagesFidelity": 0},
        ]  # fmt: skip
        results = await peer.ask(*(task(base | each) for each in styles))
    images = [result["imageBase64Data"] for result in results]
    assert images[4] == images[0]
    assert images[3] == images[1], "one window is all of it"
    assert len(set(images)) == 3


def kept(server: EmbeddedServer) -> list[str]:
    """The images that a server has, and their files."""
    rows = server.services.database.run_sync(
        lambda connection: connection.scalars(select(tables.images.c.uuid)).all()
    )
    return [*rows, *sorted(file.name for file in (server.services.settings.data / "images").iterdir())]


async def test_what_a_dry_run_or_a_refused_task_names_is_not_kept(
    server: EmbeddedServer, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files |= {"/in.png": make_image(41, 24), "/style.png": make_image(31, 60)}
    image, style = f"{web.url}/in.png", f"{web.url}/style.png"
    path = "/v1/generate/custom/clarity?dryRun=true"
    before = kept(server)
    dry = ask(server, "POST", path, body={"image": image, "styleImages": [style]})
    assert (dry.status, dry.json["creativeUnitsCost"] > 0) == (269, True), dry.body
    assert kept(server) == before
    missing = ask(server, "POST", path, body={"image": image, "styleImages": [f"{web.url}/nothing.png"]})
    assert (missing.status, "styleImages" in missing.json["message"]) == (400, True), missing.body
    poor = open_account(server, credit=Decimal("0.000001"))
    headers = {"authorization": f"Bearer {poor.key}"}
    more = {"upscaleFactor": 2, "styleImages": [style]}
    answer = ask(
        server, "POST", "/v1/generate/custom/clarity", body={"image": image, **more}, headers=headers
    )
    assert answer.status == 402, answer.body
    form: dict[str, Any] = {"image": web.files["/in.png"], "prompt": "a cat"}
    for kind in ("conservative", "creative"):
        path = f"/v2beta/stable-image/upscale/{kind}"
        assert ask(server, "POST", path, form=form, headers=headers).status == 402
    wrong = ask(server, "POST", path, form=form | {"style_preset": "origami"})
    assert wrong.status == 400
    async with connected(server, key=poor.key) as peer:
        refused = await peer.ask(
            task({"styleImages": [style]}), task({"styleImages": [style]}, inputImage="?")
        )
    assert [each["code"] for each in refused] == ["insufficientCredits", "invalidInputImage"]
    assert kept(server) == before, "a refused task keeps nothing"
    monkeypatch.setattr(server.services.images, "limit", 10_000)
    noise = Image.effect_noise((300, 300), 90)
    noise.save(large := io.BytesIO(), "PNG")  # too large to be written before it is known to be wanted
    web.files["/large.png"] = large.getvalue()
    async with connected(server, key=open_account(server).key) as peer:
        (full,) = await peer.ask(task({"styleImages": [style, f"{web.url}/large.png"]}, inputImage=image))
        monkeypatch.undo()
        (done,) = await peer.ask(known := task(outputType="URL"))
        then = kept(server)
        (conflict,) = await peer.ask(known | {"settings": FAST | {"styleImages": [style]}})
    assert (full["code"], conflict["code"]) == ("storageQuotaExceeded", "conflictTaskUUID")
    assert len(then) == len(before) + 4, "the input and the result of the one that was done"
    assert kept(server) == then
    before = then
    async with connected(server) as peer:
        (done,) = await peer.ask(task({"styleImages": [style]}, inputImage=image))
    assert "imageUUID" in done
    assert len(kept(server)) == len(before) + 6, "the input, the style and the result, each with its file"


async def test_the_price_is_of_the_steps_that_are_done_the_pixels_drawn_and_what_enlarges(
    server: EmbeddedServer,
) -> None:
    usual = 7 * 2  # of 20 steps a strength of 0.35, towards one prompt and away from the other
    size = Size(80, 48)
    cases: list[tuple[dict[str, Any], Fraction]] = [
        ({}, Fraction(1)),
        ({"strength": 0.15, "CFGScale": 1}, Fraction(3, usual)),
        ({"strength": 0.7}, Fraction(2)),
        # The 40 × 24 pixels are continued to 48 × 32.
        ({"refinementSteps": 1, "creativityDecay": 100}, 1 + Fraction(48 * 32, 80 * 48)),
    ]
    async with connected(server) as peer:
        results = await peer.ask(
            *(task(includeCost=True) | {"settings": {"enlarger": "lanczos"} | each} for each, _ in cases)
        )
        (enlarged,) = await peer.ask(
            task(includeCost=True) | {"settings": {"enlarger": "realesr-animevideov3"}}
        )
        (found,) = await peer.ask(
            {"taskType": "modelSearch", "taskUUID": new_uuid(), "architecture": "creative"}
        )
    costs = [round(result["cost"] * 1e9) for result in results]
    assert costs == [price(PER_MEGAPIXEL, size, work) for _, work in cases]
    assert enlarged["cost"] > results[0]["cost"]
    (model,) = found["results"]
    assert model["presets"]["balanced"]["creativity"] == PRESETS["balanced"]["creativity"]
    assert model["defaultSteps"] == 20
    assert model["enlarger"].startswith("runware:")
    assert "seamless" in model["options"]
    assert {"creativity", "controlNetWeight", "styleImages"} <= set(model["parameters"])
