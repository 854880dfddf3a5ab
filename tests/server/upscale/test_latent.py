"""The latent upscaler through a server: its settings, what the reply tells, and what is refused."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_models.diffusers.export import Exported
from onnx_models.diffusers.latent_x2 import LATENT_X2
from server.serving import EmbeddedServer
from tests.onnx_models.support.tiny_latent import (
    OF_PROMPTS,
    PARAMETERS,
    TOKENS,
    add_promptless,
    add_tiny_latent,
    write_parts,
)
from tests.server.conftest import StartServer, Tilewire, settings_for
from tests.server.support.harness import connected, make_image, new_uuid, open_image

MODEL = "runware:502@1"
IMAGE = base64.b64encode(make_image(40, 24)).decode()


def task(**more: Any) -> dict[str, Any]:
    settings = {"steps": 3} | more.pop("settings", {})
    wanted = {"model": MODEL, "inputImage": IMAGE, "settings": settings, "outputType": "base64Data"}
    return {"taskType": "upscale", "taskUUID": new_uuid(), "outputFormat": "PNG"} | wanted | more


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[EmbeddedServer]:
    data = tmp_path_factory.mktemp("server")
    add_tiny_latent(data / "added", liveliness=0.6)
    add_promptless(data / "added")
    with EmbeddedServer(settings_for(data, model_directory, added_models=data / "added")) as running:
        yield running


async def test_a_picture_is_doubled_and_the_reply_tells_the_seed(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (first,) = await peer.ask(task(includeCost=True))
        (again,) = await peer.ask(task(settings={"seed": first["seed"]}))
        (other,) = await peer.ask(task())
    assert open_image(base64.b64decode(first["imageBase64Data"])).size == (80, 48)
    assert 0 <= first["seed"] < 2**32
    assert first["cost"] == 0.000008  # 0.00384 megapixels at 0.002 USD, rounded up to a microdollar
    assert again["imageBase64Data"] == first["imageBase64Data"]
    assert other["seed"] != first["seed"]
    assert other["imageBase64Data"] != first["imageBase64Data"]


async def test_a_task_sent_again_gets_the_same_answer_without_a_seed_of_its_own(
    server: EmbeddedServer,
) -> None:
    same = task()
    async with connected(server) as peer:
        (first,) = await peer.ask(same)
        (again,) = await peer.ask(same)
    assert again == first


async def test_every_setting_is_taken_and_matters(server: EmbeddedServer) -> None:
    base = {"seed": 5, "steps": 6, "positivePrompt": "ugly cat"}
    changes: list[dict[str, Any]] = [
        {}, {"seed": 6}, {"steps": 5}, {"positivePrompt": "a"}, {"CFGScale": 9}, {"strength": 0.5},
        {"CFGScale": 9, "negativePrompt": "ugly ugly ugly"}, {"colorFix": "adain"}, {"colorFix": True},
        *({"scheduler": name} for name in ("Euler Karras", "Euler a", "Heun", "Heun Karras", "DPM++ 2M",
                                           "DPM++ 2M Karras")),
    ]  # fmt: skip
    async with connected(server) as peer:
        results = await peer.ask(*(task(settings=base | change) for change in changes))
        (wavelet,) = await peer.ask(task(settings=base | {"colorFix": "wavelet"}))
        (plain,) = await peer.ask(task(settings=base | {"colorFix": False, "scheduler": "Euler"}))
    images = [result["imageBase64Data"] for result in results]
    assert len(set(images)) == len(changes)
    assert wavelet["imageBase64Data"] == images[8]
    assert plain["imageBase64Data"] == images[0]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"steps": 0}, "invalidSettingsSteps"),
        ({"steps": 10_000}, "invalidSettingsSteps"),
        ({"steps": 2.5}, "invalidSettingsSteps"),
        ({"CFGScale": -1}, "invalidSettingsCFGScale"),
        ({"CFGScale": 1e9}, "invalidSettingsCFGScale"),
        ({"seed": -1}, "invalidSettingsSeed"),
        ({"seed": 2**63}, "invalidSettingsSeed"),
        ({"strength": 0}, "invalidSettingsStrength"),
        ({"strength": 1.5}, "invalidSettingsStrength"),
        ({"scheduler": "LCM"}, "invalidSettingsScheduler"),
        ({"colorFix": "sepia"}, "invalidSettingsColorFix"),
        ({"positivePrompt": "x" * 3001}, "invalidSettingsPositivePrompt"),
        ({"positivePrompt": ["cat"]}, "invalidSettingsPositivePrompt"),
        ({"clipSkip": 1}, "unsupportedSettingsClipSkip"),
        ({"controlNetWeight": 0.5}, "unsupportedSettingsControlNetWeight"),
        ({"tileDiffusion": True}, "unsupportedSettingsTileDiffusion"),
        ({"stepz": 3}, "unsupportedParameter"),
    ],
)
async def test_a_wrong_setting_is_one_error(
    server: EmbeddedServer, settings: dict[str, Any], code: str
) -> None:
    async with connected(server) as peer:
        (error,) = await peer.ask(task(settings=settings))
        (result,) = await peer.ask(task())
    assert error["code"] == code
    assert error["parameter"].startswith("settings")
    assert "imageBase64Data" in result


async def test_a_setting_that_a_model_has_not_is_refused(server: EmbeddedServer) -> None:
    refused = task(settings={"positivePrompt": "a cat"}, model="realesr-animevideov3")
    async with connected(server) as peer:
        (error,) = await peer.ask(refused | {"settings": {"positivePrompt": "a cat"}})
    assert error["code"] == "unsupportedSettingsPositivePrompt"
    assert "realesr-animevideov3" in error["message"]


async def test_a_prompt_that_is_too_long_is_cut_with_a_warning(server: EmbeddedServer) -> None:
    words = ["cat"] * TOKENS
    settings = {"seed": 1, "positivePrompt": " ".join(words)}
    async with connected(server) as peer:
        (fits,) = await peer.ask(task(settings=settings))
        (cut,) = await peer.ask(task(settings=settings | {"positivePrompt": " ".join([*words, "ugly"])}))
    assert "warnings" not in fits
    assert cut["warnings"] == ["settings.positivePrompt is longer than the model takes; its end was ignored"]
    assert cut["imageBase64Data"] == fits["imageBase64Data"]


async def test_other_factors_are_told(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (error,) = await peer.ask(task(upscaleFactor=17))
        results = await peer.ask(task(upscaleFactor=1.5), task(upscaleFactor=4))
    assert error["code"] == "invalidUpscaleFactor"
    sizes = [open_image(base64.b64decode(result["imageBase64Data"])).size for result in results]
    assert sizes == [(60, 36), (160, 96)]


async def test_more_work_than_the_default_steps_costs_in_proportion(server: EmbeddedServer) -> None:
    """2560 pixels: 5.12 microdollars for 20 steps, rounded up."""
    image = base64.b64encode(make_image(32, 20)).decode()
    settings: list[dict[str, Any]] = [
        {"steps": 1},
        {"steps": 20},
        {"steps": 50},
        {"steps": 100, "strength": 0.5},
        {"steps": 20, "CFGScale": 5, "positivePrompt": "cat"},
        {"steps": 20, "scheduler": "Heun"},
    ]
    async with connected(server) as peer:
        found = await peer.ask(
            *(task(inputImage=image, settings=each, includeCost=True) for each in settings)
        )
    assert [result["cost"] for result in found] == [6e-6, 6e-6, 13e-6, 13e-6, 11e-6, 10e-6]


async def test_a_model_without_prompts_refuses_them_and_makes_four_times_in_its_own_steps(
    server: EmbeddedServer,
) -> None:
    def promptless(**more: Any) -> dict[str, Any]:
        return task(model="promptless") | {"settings": {}, "includeCost": True} | more

    async with connected(server) as peer:
        refused = await peer.ask(*(promptless(settings={name: "5"}) for name in OF_PROMPTS))
        refused += await peer.ask(promptless(settings={"CFGScale": 5}))
        default, four, twelve = await peer.ask(
            promptless(), promptless(upscaleFactor=4), promptless(settings={"steps": 12})
        )
        (search,) = await peer.ask(
            {"taskType": "modelSearch", "taskUUID": new_uuid(), "search": "promptless"}
        )
    assert [error["code"] for error in refused] == [
        "invalidSettingsCFGScale",
        "unsupportedSettingsPositivePrompt",
        "unsupportedSettingsNegativePrompt",
        "unsupportedSettingsCFGScale",
    ]
    assert open_image(base64.b64decode(default["imageBase64Data"])).size == (160, 96)
    assert [result["cost"] for result in (default, four, twelve)] == [16e-6, 16e-6, 47e-6]
    assert search["results"][0]["defaultSteps"] == 4


async def test_progress_tells_of_every_step(server: EmbeddedServer) -> None:
    shares = []
    async with connected(server) as peer:
        await peer.send(task(includeProgress=True, settings={"steps": 10}))
        while (item := await peer.receive_item()).get("status") == "processing":
            shares.append(item["progress"])
    assert shares == sorted(shares)
    assert "imageBase64Data" in item


async def test_the_search_tells_the_parameters(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (found,) = await peer.ask({"taskType": "modelSearch", "taskUUID": new_uuid(), "search": "502@1"})
    (model,) = found["results"]
    assert model["architecture"] == "latent"
    assert model["parameters"] == list(PARAMETERS)
    assert model["upscaleFactors"] == [2]
    assert model["defaultSteps"] == 20


@pytest.mark.parametrize(("spoilt", "told"), [("nan", "not numbers"), ("black", "black picture")])
async def test_a_spoilt_result_is_an_error_and_costs_nothing(
    start_server: StartServer, tmp_path: Path, spoilt: str, told: str
) -> None:
    add_tiny_latent(tmp_path / "added", spoilt=spoilt)
    server = start_server(added_models=tmp_path / "added")
    account = {"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "getDetails"}
    async with connected(server) as peer:
        (error,) = await peer.ask(task())
        (details,) = await peer.ask(account)
    assert error["code"] == "internalServerError"
    assert told in error["message"]
    assert details["usage"]["total"]["credits"] == 0


async def test_a_model_that_is_not_installed_names_the_command_to_get_it(start_server: StartServer) -> None:
    async with connected(start_server()) as peer:
        (error,) = await peer.ask(task())
    assert error["code"] == "invalidModel"
    assert "tilewire models export stabilityai/sd-x2-latent-upscaler" in error["message"]
    assert "tilewire-latent-x2" in error["message"]


def test_the_commands_know_it_and_remove_it(tilewire: Tilewire, tmp_path: Path) -> None:
    added = tmp_path / "data" / "models"
    listed = " ".join(tilewire("models", "list").output.split())
    assert "runware:502@1 · stabilityai/sd-x2-latent-upscaler" in listed, "it can be exported"
    add_tiny_latent(added)
    listed = " ".join(tilewire("models", "list").output.split())
    assert "runware:502@1" in listed
    assert "stabilityai/sd-x2-latent-upscaler" not in listed, "it is installed"
    assert tilewire("models", "verify").exit_code == 0
    (file,) = added.glob("*/unet.onnx")
    file.write_bytes(b"damaged")
    assert tilewire("models", "verify").exit_code == 1
    assert tilewire("models", "remove", "sd-x2-latent-upscaler").exit_code == 0
    assert not list(added.glob("[!.]*"))


def test_an_exported_model_is_told_listed_and_not_exported_twice(
    tilewire: Tilewire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export itself is tested with diffusers, in tests/onnx_models."""

    def exported(_pipeline: Path, folder: Path, _open_part: object, **_more: object) -> Exported:
        return Exported(write_parts(folder), {"unet": 1.25e-6})

    monkeypatch.setattr("onnx_models.diffusers.export.located", lambda _source, _on_progress: tmp_path)
    monkeypatch.setattr("onnx_models.diffusers.export.kind_of", lambda _pipeline: LATENT_X2)
    monkeypatch.setattr("onnx_models.diffusers.export.export_pipeline", exported)
    result = tilewire("models", "export", "someone/pipeline", "--price", "0.5", "--window", "256")
    told = " ".join(result.output.split())
    assert "sd-x2-latent-upscaler (runware:502@1): windows of 256 px with an overlap of 64 px" in told
    assert "0.5 USD per megapixel; from PyTorch: unet 1e-06" in told
    listed = " ".join(tilewire("models", "list").output.split())
    installed = listed.partition("To fetch")[0]
    assert "sd-x2-latent-upscaler" in installed
    assert "0.5 USD/MP · openrail++" in installed
    again = tilewire("models", "export", "someone/pipeline")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "is taken" in again.stderr
    other = tilewire("models", "export", "someone/pipeline", "--name", "other")
    assert "other (local:other@1)" in " ".join(other.output.split())


def test_what_cannot_be_exported_is_one_message(tilewire: Tilewire, tmp_path: Path) -> None:
    result = tilewire("models", "export", tmp_path / "none")
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
