"""`seamless`, `tta` and `blend` as clients ask for them: over the socket, by POST, through the client."""

import base64
import io
from typing import Any

import httpcore
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engines import Picture
from engines.ensemble import blended
from server.serving import EmbeddedServer
from tests.server.support.harness import (
    KEY,
    Item,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    socket_url,
    upscale,
)
from tilewire import Tilewire

ANIME = "realesrgan-x4plus-anime"
LATENT = "tilewire-latent-x2"
IMAGE = base64.b64encode(make_image(24, 16)).decode()


def pixels(item: Item) -> NDArray[np.uint8]:
    return np.asarray(open_image(base64.b64decode(item["imageBase64Data"])).convert("RGB"))


def texture() -> bytes:
    """A texture of 32 × 24 pixels whose opposite edges go on smoothly."""
    y, x = np.mgrid[0:24, 0:32]
    waves = np.sin(2 * np.pi * (x / 32 + 0.2)) + np.cos(2 * np.pi * (3 * x / 32 + y / 24 + 0.6))
    colours = np.stack([128 + 50 * waves, 90 + 40 * waves, 140 - 50 * waves], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("factor", [4, 2.5])
async def test_a_texture_laid_two_by_two_shows_no_seam(server: EmbeddedServer, factor: float) -> None:
    """It is what the model makes of the texture that was laid so before; otherwise edges differ."""
    data = texture()
    large = np.tile(np.asarray(open_image(data)), (2, 2, 1))
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "PNG")
    wanted = {"upscaleFactor": factor, "outputType": "base64Data"}
    encoded = base64.b64encode(data).decode()
    async with connected(server) as peer:
        *replies, whole = await peer.ask(
            upscale(encoded, **wanted, seamless=True),
            upscale(encoded, **wanted, seamless="both"),
            upscale(encoded, **wanted),
            upscale(base64.b64encode(buffer.getvalue()).decode(), **wanted),
        )
    expected = pixels(whole).astype(int)
    height, width, _ = expected.shape
    both, named, plain = (
        np.abs(np.tile(pixels(reply), (2, 2, 1)) - expected).max(axis=2) for reply in replies
    )
    middle = slice(height // 4, -height // 4), slice(width // 4, -width // 4)
    assert both[middle].max() <= 3, "bf16 rounds"
    assert np.array_equal(both, named)
    assert plain[height // 2 - 2 : height // 2 + 2].max() > 5
    assert plain[:, width // 2 - 2 : width // 2 + 2].max() > 5


async def test_the_mean_over_all_flips_costs_eight_times_as_much_and_is_sent_in_parts(
    server: EmbeddedServer,
) -> None:
    account = open_account(server)
    encoded = base64.b64encode(make_image(100, 100)).decode()
    wanted = {"outputType": "base64Data", "includeCost": True, "upscaleFactor": 4}
    async with connected(server, key=account.key) as peer:
        single, same, eight = await peer.ask(
            upscale(encoded, **wanted), upscale(encoded, **wanted, tta=1), upscale(encoded, **wanted, tta=8)
        )
        assert np.array_equal(pixels(single), pixels(same))
        assert not np.array_equal(pixels(single), pixels(eight))
        assert eight["cost"] == pytest.approx(8 * single["cost"])
        task = upscale(encoded, **wanted, tta=8, includeTiles=True, includeProgress=True)
        await peer.send(task)
        made, shares = np.zeros((400, 400, 3), np.uint8), []
        while (item := await peer.receive_item()).get("status") == "processing":
            shares.append(item["progress"])
            if (tile := item.get("tile")) is not None:
                part = open_image(base64.b64decode(tile["imageDataURI"].partition(",")[2]))
                made[tile["y"] : tile["y"] + tile["height"], tile["x"] : tile["x"] + tile["width"]] = part
    assert len(set(shares)) >= 7
    assert shares == sorted(shares)
    assert np.abs(made.astype(int) - pixels(item)).mean() < 2
    assert charges(server, account.id)[1] == 4


async def test_a_blend_is_made_of_both_results_and_costs_what_both_do(server: EmbeddedServer) -> None:
    wanted = {"outputType": "base64Data", "includeCost": True, "upscaleFactor": 2}
    encoded = base64.b64encode(make_image(100, 100)).decode()
    async with connected(server) as peer:
        below, above, both, nothing = await peer.ask(
            upscale(encoded, **wanted),
            upscale(encoded, **wanted, model=ANIME),
            upscale(encoded, **wanted, blend={"model": ANIME, "visibility": 0.25}),
            upscale(encoded, **wanted, blend={"model": ANIME, "visibility": 0}),
        )
    expected = blended(Picture(pixels=pixels(below)), Picture(pixels=pixels(above)), 0.25)
    assert np.array_equal(pixels(both), expected.pixels)
    assert both["cost"] == pytest.approx(below["cost"] + above["cost"])
    assert np.array_equal(pixels(nothing), pixels(below))
    assert nothing["cost"] == below["cost"]


async def test_all_of_it_at_once_by_post_through_the_client_and_a_second_time(server: EmbeddedServer) -> None:
    data = texture()
    blend = {"model": ANIME, "visibility": 0.5}
    task = upscale(
        base64.b64encode(data).decode(),
        outputType="base64Data",
        seamless="both",
        tta=8,
        blend=blend,
        width=70,
        height=60,
        resizeMode="stretch",
    )
    del task["upscaleFactor"]
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with httpcore.AsyncConnectionPool() as pool:
        content = msgspec.json.encode([task])
        response = await pool.request("POST", f"{server.url}/v1", headers=headers, content=content)
    body = msgspec.json.decode(response.content)
    assert response.status == 200, body
    assert pixels(body["data"][0]).shape == (60, 70, 3)
    async with connected(server) as peer:
        (again,) = await peer.ask(task)
        details = {"taskType": "getTaskDetails", "taskUUID": task["taskUUID"]}
        (details,) = await peer.ask(details)
    assert again == body["data"][0]
    (sent,) = details["request"]
    assert {name: sent[name] for name in ("seamless", "tta", "blend")} == {
        "seamless": "both",
        "tta": 8,
        "blend": blend,
    }
    async with Tilewire(socket_url(server), KEY) as tilewire:
        result = await tilewire.upscale(
            data,
            model=task["model"],
            width=70,
            height=60,
            resize_mode="stretch",
            seamless="both",
            tta=8,
            blend={"model": ANIME, "visibility": 0.5},
            output_format="PNG",
        )
        (anime,) = [model for model in await tilewire.models() if model.name == ANIME]
        (latent,) = [model for model in await tilewire.models() if model.name == LATENT]
    assert np.array_equal(result.to_array(), pixels(again))
    assert anime.options == ["seamless", "tta", "blend"]
    assert latent.options == ["tta", "blend"]


async def test_a_latent_upscaler_can_be_blended_with_the_seed_of_the_task(server: EmbeddedServer) -> None:
    wanted: dict[str, Any] = {"outputType": "base64Data", "blend": {"model": LATENT, "visibility": 1}}
    async with connected(server) as peer:
        blend, same, alone = await peer.ask(
            upscale(IMAGE, **wanted, taskUUID=(first := new_uuid())),
            upscale(IMAGE, **wanted),
            upscale(IMAGE, model=LATENT, outputType="base64Data", settings={"seed": seed_of(first)}),
        )
    assert not np.array_equal(pixels(blend), pixels(same))
    assert np.array_equal(pixels(blend), pixels(alone))


def seed_of(task_uuid: str) -> int:
    return int(task_uuid.replace("-", ""), 16) % 2**32


@pytest.mark.parametrize(
    ("parameters", "code", "parameter", "told"),
    [
        ({"seamless": "z"}, "invalidSeamless", "seamless", "one of both, x, y"),
        ({"seamless": 1}, "invalidSeamless", "seamless", "int"),
        ({"seamless": "x", "model": LATENT}, "unsupportedSeamless", "seamless", LATENT),
        (
            {"seamless": "y", "blend": {"model": LATENT, "visibility": 0.5}},
            "unsupportedSeamless",
            "seamless",
            LATENT,
        ),
        (
            {"seamless": "x", "width": 20, "height": 40, "resizeMode": "crop", "upscaleFactor": None},
            "invalidResizeMode",
            "resizeMode",
            "stretch",
        ),
        ({"tta": 2}, "invalidTta", "tta", "one of 1, 8"),
        ({"tta": 0}, "invalidTta", "tta", "one of 1, 8"),
        ({"tta": "8"}, "invalidTta", "tta", "int"),
        ({"tta": True}, "invalidTta", "tta", "int"),
        ({"blend": ANIME}, "invalidBlend", "blend", "object"),
        ({"blend": {"model": ANIME}}, "missingBlendVisibility", "blend.visibility", "required"),
        ({"blend": {"visibility": 1}}, "missingBlendModel", "blend.model", "required"),
        (
            {"blend": {"model": ANIME, "visibility": 1.01}},
            "invalidBlendVisibility",
            "blend.visibility",
            "<= 1",
        ),
        ({"blend": {"model": ANIME, "visibility": -1}}, "invalidBlendVisibility", "blend.visibility", ">= 0"),
        (
            {"blend": {"model": "no", "visibility": 1}},
            "invalidBlendModel",
            "blend.model",
            "no model is called",
        ),
        (
            {"blend": {"model": "faithful", "visibility": 1}},
            "invalidBlendModel",
            "blend.model",
            "models pull",
        ),
        (
            {"blend": {"model": ANIME, "visibility": 1, "opacity": 1}},
            "invalidBlend",
            "blend",
            "opacity",
        ),
    ],
)
async def test_what_makes_no_sense_is_one_error(
    server: EmbeddedServer, parameters: dict[str, Any], code: str, parameter: str, told: str
) -> None:
    async with connected(server) as peer:
        (error,) = await peer.ask(upscale(IMAGE, **parameters))
        await peer.nothing_more()
    assert (error["code"], error["parameter"]) == (code, parameter), error
    assert told in error["message"]


@pytest.mark.parametrize("size", [{"width": 24, "height": 40}, {"width": 60, "height": 40}])
async def test_crop_is_taken_where_the_edges_that_meet_stay(
    server: EmbeddedServer, size: dict[str, int]
) -> None:
    """24 × 16 pixels are cut at the sides alone, or not at all."""
    wanted = {"seamless": "y", "resizeMode": "crop", "upscaleFactor": None, "outputType": "base64Data"}
    async with connected(server) as peer:
        (result,) = await peer.ask(upscale(IMAGE, **wanted, **size))
    assert pixels(result).shape[:2] == (size["height"], size["width"])
