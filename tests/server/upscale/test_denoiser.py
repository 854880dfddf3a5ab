"""`denoise`: noise is removed before any model, at a price of its own."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_models import load_catalogue
from server.serving import EmbeddedServer
from tests.onnx_models.support.ffdnet import denoised, tensors
from tests.server.conftest import Tilewire, settings_for
from tests.server.support.denoiser import add_denoiser
from tests.server.support.harness import KEY, connected, make_image, new_uuid, open_image
from tilewire import Tilewire as Client

SIDES = (90, 61)
FILE = make_image(*SIDES, seed=4)
IMAGE = base64.b64encode(FILE).decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[EmbeddedServer]:
    data = tmp_path_factory.mktemp("server")
    add_denoiser(data / "added")
    with EmbeddedServer(settings_for(data, model_directory, added_models=data / "added")) as running:
        yield running


def task(**more: Any) -> dict[str, Any]:
    wanted = {"inputImage": IMAGE, "outputType": "base64Data", "outputFormat": "PNG", "upscaleFactor": 2}
    model = {"taskType": "upscale", "taskUUID": new_uuid(), "model": "realesr-animevideov3"}
    return model | wanted | more


def pixels(result: dict[str, Any]) -> Any:
    return np.asarray(open_image(base64.b64decode(result["imageBase64Data"])).convert("RGB")).astype(int)


@pytest.mark.parametrize("model", ["realesr-animevideov3", "tilewire-latent-x2"])
async def test_the_upscaler_sees_what_the_denoiser_gives(server: EmbeddedServer, model: str) -> None:
    source = np.asarray(open_image(FILE).convert("RGB"))
    clean = np.rint(255 * np.clip(denoised(tensors(), source, 30), 0, 1)).astype(np.uint8)
    same = {"model": model} | ({"settings": {"seed": 1}} if "latent" in model else {})
    async with connected(server) as peer:
        plain, by_hand, one_step, none = await peer.ask(
            task(**same),
            task(**same, inputImage=base64.b64encode(png(clean)).decode()),
            task(**same, denoise={"strength": 30, "model": "tiny-denoiser"}),
            task(**same, denoise={"strength": 0}),
        )
    assert np.abs(pixels(one_step) - pixels(by_hand)).mean() < 1
    assert np.abs(pixels(one_step) - pixels(plain)).mean() > 5
    assert none["imageBase64Data"] == plain["imageBase64Data"]


def png(array: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


async def test_it_costs_what_the_input_has_in_pixels(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        plain, both = await peer.ask(
            task(includeCost=True), task(includeCost=True, denoise={"strength": 10}, includeProgress=True)
        )
    width, height = SIDES
    assert both["cost"] - plain["cost"] == pytest.approx(width * height / 1e6, abs=1e-6)  # 1 USD each


@pytest.mark.parametrize(
    ("denoise", "code", "parameter", "told"),
    [
        ({}, "missingDenoiseStrength", "denoise.strength", "strength"),
        ({"strength": -1}, "invalidDenoiseStrength", "denoise.strength", ">= 0"),
        ({"strength": 76}, "invalidDenoiseStrength", "denoise.strength", "<= 75"),
        ({"strength": "much"}, "invalidDenoiseStrength", "denoise.strength", "float"),
        ({"strength": 9, "model": "ffdnet"}, "invalidDenoiseModel", "denoise.model", "models pull ffdnet"),
        ({"strength": 9, "model": "x"}, "invalidDenoiseModel", "denoise.model", "tiny-denoiser"),
        ({"strength": 9, "levels": 3}, "invalidDenoise", "denoise", "unknown field `levels`"),
        (25, "invalidDenoise", "denoise", "object"),
    ],
)
async def test_what_is_wrong_gets_one_error(
    server: EmbeddedServer, denoise: Any, code: str, parameter: str, told: str
) -> None:
    async with connected(server) as peer:
        (error,) = await peer.ask(task(denoise=denoise))
    assert (error["code"], error["parameter"]) == (code, parameter), error
    assert told in error["message"]


async def test_the_search_lists_denoisers_by_their_category_only(server: EmbeddedServer) -> None:
    search = {"taskType": "modelSearch", "taskUUID": new_uuid()}
    async with connected(server) as peer:
        (upscalers,) = await peer.ask(search)
        (denoisers,) = await peer.ask(search | {"category": "denoiser"})
        wanted = task(denoise={"strength": 10})
        await peer.ask(wanted)
        (details,) = await peer.ask({"taskType": "getTaskDetails", "taskUUID": wanted["taskUUID"]})
    assert "tiny-denoiser" not in [each["name"] for each in upscalers["results"]]
    assert [each["name"] for each in denoisers["results"]] == ["tiny-denoiser"]
    assert details["request"][0]["denoise"] == {"model": "tiny-denoiser", "strength": 10}


async def test_the_client_has_it_too(server: EmbeddedServer) -> None:
    async with Client(server.url, KEY) as client:
        plain = await client.upscale(FILE, factor=2, model="realesr-animevideov3")
        clean = await client.upscale(FILE, factor=2, model="realesr-animevideov3", denoise=40)
        (found,) = await client.models("denoiser")
    assert plain.image != clean.image
    assert found.name == "tiny-denoiser"


def test_the_command_has_it_too(tilewire: Tilewire, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILE)
    command = ("upscale", tmp_path / "a.png", "--model", "realesr-animevideov3", "--factor", 2)
    refused = tilewire(*command, "--denoise", 30)
    assert refused.exit_code == 2
    assert "tilewire models pull ffdnet" in refused.output
    add_denoiser(tmp_path / "data" / "models")
    assert load_catalogue(tmp_path / "data" / "models").auxiliary("denoiser")
    plain = tilewire(*command)
    assert plain.exit_code == 0, plain.output
    before = (tmp_path / "a-2x.png").read_bytes()
    assert tilewire(*command, "--denoise", 30).exit_code == 0
    assert (tmp_path / "a-2x.png").read_bytes() != before
