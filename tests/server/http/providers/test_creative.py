"""Other services' diffusion by a creative upscaler: their words for the same settings."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest
from sqlalchemy import select

from server.serving import EmbeddedServer
from server.state.tables import tasks
from tests.engines.support.tiny_creative import add_tiny_creative
from tests.server.conftest import settings_for
from tests.server.support.ask import ask, finished
from tests.server.support.harness import KEY, connected, make_image, new_uuid, open_image, upscale

ENCODED = base64.b64encode(make_image(24, 16)).decode()
EVERYTHING = {
    "preset": "creative", "style": "anime", "prompt": "a cat", "negativePrompt": "ugly", "creativity": 40,
    "creativityDecay": 80, "hallucination": 20, "imageFidelity": 70, "promptFidelity": 30,
    "detailsLevel": -10, "fractality": 40, "refinementSteps": 1, "overrideEmbeddings": True, "seed": 7,
    "imageType": "texture",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[EmbeddedServer]:
    data = tmp_path_factory.mktemp("creative")
    add_tiny_creative(data / "added")
    with EmbeddedServer(settings_for(data, model_directory, added_models=data / "added")) as running:
        yield running


def post(server: EmbeddedServer, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    response = httpcore.request("POST", server.url + path, headers=headers, content=json.dumps(body).encode())
    return response.status, json.loads(response.content)


async def test_scenarios_controls_are_those_of_the_task(server: EmbeddedServer) -> None:
    """The same settings by `POST /generate/upscale` and over the socket give the same image."""
    status, accepted = post(
        server, "/v1/generate/upscale", {"image": ENCODED, "scalingFactor": 2} | EVERYTHING
    )
    assert status == 200, accepted
    settings = {name: value for name, value in EVERYTHING.items() if name not in ("prompt", "imageType")}
    same = {
        "taskType": "upscale", "taskUUID": new_uuid(), "model": "clarity", "inputImage": ENCODED,
        "outputFormat": "PNG", "upscaleFactor": 2, "seamless": "both", "outputType": "base64Data",
        "settings": settings | {"positivePrompt": "a cat"},
    }  # fmt: skip
    async with connected(server) as peer:
        (result,) = await peer.ask(same)
        job = await peer.finished(accepted["job"]["jobId"])
    image = httpcore.request("GET", job["imageURL"]).content
    assert base64.b64decode(result["imageBase64Data"]) == image


def test_photios_quality_and_likeness_are_steps_and_strength(server: EmbeddedServer) -> None:
    status, reply = post(
        server,
        "/v1/inference/upscale",
        {"image": ENCODED, "prompt": "a cat", "quality": "MIDDLE", "denoising_strength": 0.9},
    )
    assert status == 200, reply
    assert open_image(base64.b64decode(reply["body"])).size == (48, 32)


def test_photios_own_defaults_beside_a_prompt_change_nothing(server: EmbeddedServer) -> None:
    body = {"image": ENCODED, "prompt": "a cat"}
    negative = "worst quality, low quality, illustration, 3d, 2d, painting, cartoons, sketch"
    defaults = {"quality": "LOW", "denoising_strength": 0.2, "negative_prompt": negative}
    for more in ({}, defaults):
        assert post(server, "/v1/inference/upscale", body | more)[0] == 200
    with_defaults, without = server.services.database.run_sync(
        lambda connection: connection.scalars(
            select(tasks.c.request)
            .where(tasks.c.service == "photio")
            .order_by(tasks.c.created.desc())
            .limit(2)
        ).all()
    )
    drawn = [json.loads(request)["diffusion"] | {"seed": 0} for request in (with_defaults, without)]
    assert drawn[0] == drawn[1]
    assert drawn[0]["negative_prompt"].startswith(negative)


def test_photios_likeness_matters_at_4_too(server: EmbeddedServer) -> None:
    body = {"image": ENCODED, "upscale_by": 4, "prompt": "a cat"}
    made = {
        post(server, "/v1/inference/upscale", body | {"denoising_strength": likeness})[1]["body"]
        for likeness in (0, 0.9)
    }
    assert len(made) == 2
    assert {open_image(base64.b64decode(each)).size for each in made} == {(96, 64)}


@pytest.mark.slow  # x16 in four passes
async def test_stabilitys_creative_goes_towards_4k_in_the_style_that_is_asked_for(
    server: EmbeddedServer,
) -> None:
    path = "/v2beta/stable-image/upscale/creative"
    form = {"image": make_image(24, 16), "prompt": "a cat", "creativity": "0.1", "seed": "7"}
    taken = ask(server, "POST", path, form=form | {"style_preset": "comic-book"})
    done = finished(server, f"/v2beta/results/{taken.json['id']}", lambda answer: answer.status != 202)
    assert open_image(done.body).size == (16 * 24, 16 * 16), "as near as any factor comes"
    async with connected(server) as peer:
        settings = {"positivePrompt": "a cat", "strength": 0.1, "seed": 7, "style": "comic"}
        (same,) = await peer.ask(
            upscale(ENCODED, model="clarity", upscaleFactor=16, settings=settings, outputType="base64Data")
        )
    assert base64.b64decode(same["imageBase64Data"]) == done.body
    refused = ask(server, "POST", path, form=form | {"style_preset": "origami"})
    assert (refused.status, "style_preset" in refused.json["errors"][0]) == (400, True)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"style": "baroque"}, "style"),
        ({"styleImages": [new_uuid()]}, "without the part for it"),
        ({"creativity": 40, "strength": 0}, None),
    ],
)
def test_what_the_model_cannot_do_is_named_in_scenarios_words(
    server: EmbeddedServer, body: dict[str, Any], named: str | None
) -> None:
    status, reply = post(server, "/v1/generate/upscale", {"image": ENCODED} | body)
    assert (status == 200) is (named is None)
    assert named is None or named in reply["message"]
    assert "settings." not in reply.get("message", "")
