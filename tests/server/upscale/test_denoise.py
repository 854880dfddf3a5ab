"""Models with levels of noise: what `settings.denoise` chooses, and what is refused."""

import base64
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_models import Model, OnnxWeights, WeightFile
from onnx_models.entries import write_entry
from onnx_models.graph import wrap_uint8
from server.serving import EmbeddedServer
from tests.onnx_models.support.tiny import upscaler
from tests.server.conftest import settings_for
from tests.server.support.harness import connected, make_image, new_uuid, open_image

IMAGE = base64.b64encode(make_image(40, 24)).decode()
LEVELS = (None, 0, 3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[EmbeddedServer]:
    """Serves a model whose levels blur more or less."""
    data = tmp_path_factory.mktemp("server")
    model = Model(
        name="levels",
        aliases=("velvet",),
        air="local:levels@1",
        title="Levels",
        description="A test.",
        family="network",
        weights=tuple(OnnxWeights(2, WeightFile("", "0" * 64), level) for level in LEVELS),
        factors=(2,),
        fractional=True,
        overlap=16,
        tile=128,
        price_per_megapixel=Decimal(0),
        licence="MIT",
        parameters=("denoise",),
    )
    networks = [wrap_uint8(upscaler(2, reach), 2).SerializeToString() for reach in (1, 4, 8)]
    write_entry(data / "added", model, networks)
    with EmbeddedServer(settings_for(data, model_directory, added_models=data / "added")) as running:
        yield running


def task(**more: Any) -> dict[str, Any]:
    wanted = {"model": "levels", "inputImage": IMAGE, "outputType": "base64Data", "outputFormat": "PNG"}
    return {"taskType": "upscale", "taskUUID": new_uuid()} | wanted | more


async def test_the_level_chooses_the_network_and_none_is_the_default(server: EmbeddedServer) -> None:
    settings = [{}, {"settings": {"denoise": 0}}, {"settings": {"denoise": 3}}, {"model": "velvet"}]
    async with connected(server) as peer:
        results = await peer.ask(*(task(**each) for each in settings))
    plain, little, much, alias = (result["imageBase64Data"] for result in results)
    assert plain == alias
    assert len({plain, little, much}) == 3
    deviations = [
        np.asarray(open_image(base64.b64decode(each))).astype(float).std() for each in (plain, little, much)
    ]
    assert deviations == sorted(deviations, reverse=True)


@pytest.mark.parametrize(
    ("model", "level", "code", "told"),
    [
        ("levels", 1, "invalidSettingsDenoise", "levels removes noise at the levels 0, 3"),
        ("levels", 4, "invalidSettingsDenoise", "3"),
        ("levels", "much", "invalidSettingsDenoise", "int"),
        ("realesr-animevideov3", 0, "unsupportedSettingsDenoise", "has no setting 'denoise'"),
    ],
)
async def test_a_level_that_there_is_not_is_refused(
    server: EmbeddedServer, model: str, level: object, code: str, told: str
) -> None:
    async with connected(server) as peer:
        (error,) = await peer.ask(task(model=model, settings={"denoise": level}))
    assert (error["code"], error["parameter"]) == (code, "settings.denoise")
    assert told in error["message"]


async def test_the_search_finds_a_model_by_its_alias_and_names_the_parameter(server: EmbeddedServer) -> None:
    search = {"taskType": "modelSearch", "taskUUID": new_uuid(), "search": "velvet"}
    async with connected(server) as peer:
        (found,) = await peer.ask(search)
    (model,) = found["results"]
    assert (model["name"], model["parameters"]) == ("levels", ["denoise"])
