"""`faceRestoration`: faces are found, restored and put back, beside any model, at a price of their own."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer, Tilewire, settings_for
from tests.server.support.faces import CENTRES, HEIGHT, WIDTH, add_detector, add_restorer, portrait
from tests.server.support.harness import KEY, Peer, connected, new_uuid, open_image
from tilewire import Tilewire as Client

FILE = portrait(*CENTRES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[EmbeddedServer]:
    data = tmp_path_factory.mktemp("server")
    add_detector(data / "added")
    add_restorer(data / "added", "lighter", lighter=0.4)
    add_restorer(data / "added", "as-it-was")
    add_restorer(data / "added", "weighed", lighter=0.4, weight=True, batch=1)
    with EmbeddedServer(settings_for(data, model_directory, added_models=data / "added")) as running:
        yield running


def task(file: bytes = FILE, **more: Any) -> dict[str, Any]:
    wanted = {"outputType": "base64Data", "outputFormat": "PNG", "upscaleFactor": 2}
    model = {"taskType": "upscale", "taskUUID": new_uuid(), "model": "realesr-animevideov3"}
    return model | {"inputImage": base64.b64encode(file).decode()} | wanted | more


def pixels(result: dict[str, Any]) -> Any:
    assert "imageBase64Data" in result, result
    return np.asarray(open_image(base64.b64decode(result["imageBase64Data"])).convert("RGB")).astype(int)


async def lightened(peer: Peer, faces: dict[str, Any], **more: Any) -> Any:
    """By how much each pixel is lighter with restored faces than without."""
    plain, restored = await peer.ask(task(**more), task(**more, faceRestoration=faces))
    return pixels(restored) - pixels(plain)


def cheek(lighter: Any, index: int, scale: int = 2) -> float:
    """Beside the mark in the middle of a face."""
    x, y = CENTRES[index]
    return float(np.median(lighter[scale * y : scale * (y + 4), scale * (x - 12) : scale * (x - 6)]))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("model", ["realesr-animevideov3", "tilewire-latent-x2"])
async def test_every_face_is_restored_and_nothing_else(
    server: EmbeddedServer, model: str, first: bool
) -> None:
    more = {"settings": {"seed": 1}} if "latent" in model else {}
    async with connected(server) as peer:
        lighter = await lightened(peer, {"model": "lighter", "upscaleFirst": first}, model=model, **more)
    assert [cheek(lighter, index) for index in (0, 1)] == pytest.approx([51, 51], abs=4)  # 0.4 of 127.5
    away = lighter[:, 300:480].copy(), lighter[-60:], lighter[:60]
    assert all((part == 0).all() for part in away)


@pytest.mark.parametrize("factor", [1, 3.3])
async def test_a_restorer_that_changes_nothing_gives_the_picture_back(
    server: EmbeddedServer, factor: float
) -> None:
    faces = {"model": "as-it-was", "upscaleFirst": True}
    async with connected(server) as peer:
        changed = await lightened(peer, faces, upscaleFactor=factor)
        nobody = await lightened(peer, {"model": "lighter"}, file=portrait(), upscaleFactor=factor)
    assert np.abs(changed).max() <= 2
    assert (nobody == 0).all()


async def test_visibility_and_weight_say_how_much(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        half = await lightened(peer, {"model": "lighter", "visibility": 0.5, "upscaleFirst": True})
        none = await lightened(peer, {"model": "lighter", "visibility": 0})
        weights = [
            await lightened(peer, {"model": "weighed", "upscaleFirst": True} | more)
            for more in ({}, {"weight": 0}, {"weight": 1})
        ]
    assert cheek(half, 0) == pytest.approx(25.5, abs=2)
    assert (none == 0).all()
    assert [cheek(each, 1) for each in weights] == pytest.approx([25.5, 51, 0], abs=2)


@pytest.mark.slow
async def test_forty_faces_are_forty_and_a_stretched_grey_picture_has_them_where_they_belong(
    server: EmbeddedServer,
) -> None:
    many = [(24 + 44 * (k % 8), 20 + 48 * (k // 8)) for k in range(40)]
    async with connected(server) as peer:
        crowd = await lightened(peer, {"model": "lighter", "upscaleFirst": True}, file=portrait(*many))
        stretched = {"width": 800, "height": 390, "resizeMode": "stretch", "upscaleFactor": None}
        wide = await lightened(peer, {"model": "lighter"}, **stretched)
    assert min(int(np.median(crowd[2 * y : 2 * y + 8, 2 * x - 16 : 2 * x - 10])) for x, y in many) > 40
    x, y = CENTRES[0]
    assert np.median(wide[int(1.5 * y) : int(1.5 * y) + 6, 2 * x - 24 : 2 * x - 12]) == pytest.approx(
        51, abs=5
    )


async def test_it_costs_what_the_result_has_in_pixels_whoever_is_there(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        plain, faces, nobody = await peer.ask(
            task(includeCost=True),
            task(includeCost=True, faceRestoration={"model": "lighter"}),
            task(file=portrait(), includeCost=True, faceRestoration={"model": "lighter"}),
        )
    extra = 2 * 4 * HEIGHT * WIDTH / 1e6  # 2 USD each
    assert faces["cost"] - plain["cost"] == pytest.approx(extra, abs=1e-5)
    assert faces["cost"] == nobody["cost"]


async def test_faces_alone_are_restored_for_their_price_in_a_picture_of_the_same_size(
    server: EmbeddedServer,
) -> None:
    only = {"restoreOnly": True, "model": None, "upscaleFactor": None, "includeCost": True}
    async with connected(server) as peer:
        for first in (False, True):
            wanted = task(**only, faceRestoration={"model": "lighter", "upscaleFirst": first})
            (result,) = await peer.ask(wanted)
            lighter = pixels(result) - np.asarray(open_image(FILE).convert("RGB")).astype(int)
            assert [cheek(lighter, index, 1) for index in (0, 1)] == pytest.approx([51, 51], abs=4)
            assert (lighter[-30:] == 0).all()
            assert result["cost"] == pytest.approx(2 * HEIGHT * WIDTH / 1e6, abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"faceRestoration": None}, "invalidRestoreOnly"),
        ({"faceRestoration": {"visibility": 0}}, "invalidRestoreOnly"),
        ({"model": "realesr-animevideov3"}, "invalidModel"),
        ({"upscaleFactor": 2}, "invalidUpscaleFactor"),
        ({"width": 300}, "invalidWidth"),
        ({"tta": 8}, "invalidTta"),
        ({"settings": {"denoise": 1}}, "invalidSettings"),
    ],
)
async def test_what_is_not_upscaled_takes_no_upscaler(
    server: EmbeddedServer, wrong: dict[str, Any], code: str
) -> None:
    only = {"restoreOnly": True, "model": None, "upscaleFactor": None, "faceRestoration": {}}
    async with connected(server) as peer:
        (error,) = await peer.ask(task(**only | wrong))
    assert error["code"] == code


@pytest.mark.parametrize(
    ("faces", "code", "parameter", "told"),
    [
        ({"model": "gfpgan-1.4"}, "invalidFaceRestorationModel", "model", "models pull gfpgan-1.4"),
        ({"model": "codeformer"}, "invalidFaceRestorationModel", "model", "pull codeformer --accept-licence"),
        ({"model": "x"}, "invalidFaceRestorationModel", "model", "as-it-was"),
        ({"model": "tiny-detector"}, "invalidFaceRestorationModel", "model", "restores faces"),
        ({"visibility": 1.5}, "invalidFaceRestorationVisibility", "visibility", "<= 1"),
        ({"weight": -1}, "invalidFaceRestorationWeight", "weight", ">= 0"),
        ({"model": "lighter", "weight": 0.5}, "unsupportedFaceRestorationWeight", "weight", "no weight"),
        ({"upscaleFirst": "yes"}, "invalidFaceRestorationUpscaleFirst", "upscaleFirst", "bool"),
        ({"faces": 2}, "invalidFaceRestoration", None, "unknown field `faces`"),
        (True, "invalidFaceRestoration", None, "object"),
    ],
)
async def test_what_is_wrong_gets_one_error(
    server: EmbeddedServer, faces: Any, code: str, parameter: str | None, told: str
) -> None:
    async with connected(server) as peer:
        (error,) = await peer.ask(task(faceRestoration=faces))
    expected = "faceRestoration" if parameter is None else f"faceRestoration.{parameter}"
    assert (error["code"], error["parameter"]) == (code, expected), error
    assert told in error["message"]


async def test_without_a_restorer_or_a_detector_the_error_names_the_command(
    start_server: StartServer, tmp_path: Path
) -> None:
    bare = start_server(added_models=tmp_path / "added")
    async with connected(bare) as peer:
        (error,) = await peer.ask(task(faceRestoration={}))
    assert "tilewire models pull gfpgan-1.4 or restoreformer" in error["message"]
    add_restorer(tmp_path / "others", "lighter")
    half = start_server(added_models=tmp_path / "others")
    async with connected(half) as peer:
        (error,) = await peer.ask(task(faceRestoration={"model": "lighter"}))
    assert error["parameter"] == "faceRestoration"
    assert "tilewire models pull centerface" in error["message"]


async def test_details_progress_and_parts_of_the_result_come_too(server: EmbeddedServer) -> None:
    faces = {"model": "lighter", "visibility": 0.8, "upscaleFirst": True}
    wanted = task(faceRestoration=faces, denoise=None, includeProgress=True, includeTiles=True)
    async with connected(server) as peer:
        await peer.send(wanted)
        items = []
        while "imageBase64Data" not in (item := await peer.receive_item()):
            items.append(item)
        (details,) = await peer.ask({"taskType": "getTaskDetails", "taskUUID": wanted["taskUUID"]})
    assert details["request"][0]["faceRestoration"] == faces
    shares = [item["progress"] for item in items]
    assert shares == sorted(shares)
    tiles = [item["tile"] for item in items if "tile" in item]
    last = Image.open(io.BytesIO(base64.b64decode(tiles[-1]["imageDataURI"].partition(",")[2])))
    x, y = (tiles[-1][axis] for axis in "xy")
    assert (
        np.abs(np.asarray(last.convert("RGB")) - pixels(item)[y : y + last.height, x : x + last.width]).mean()
        < 4
    )


async def test_the_client_and_the_search_have_it(server: EmbeddedServer) -> None:
    async with Client(server.url, KEY) as client:
        plain = await client.upscale(FILE, factor=2, model="realesr-animevideov3")
        faces = await client.upscale(FILE, factor=2, model="realesr-animevideov3", restore_faces="lighter")
        default = await client.upscale(FILE, factor=2, model="realesr-animevideov3", restore_faces=True)
        found = await client.models("faceRestorer")
    assert plain.image != faces.image
    assert default.image  # the first one that is installed
    assert [(each.name, each.parameters) for each in found] == [
        ("as-it-was", []),
        ("lighter", []),
        ("weighed", ["weight"]),
    ]


def test_the_command_has_it(tilewire: Tilewire, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILE)
    command = ("upscale", tmp_path / "a.png", "--model", "realesr-animevideov3", "--factor", 2)
    refused = tilewire(*command, "--restore-faces")
    assert refused.exit_code == 2
    assert "tilewire models pull gfpgan-1.4" in refused.output
    add_detector(tmp_path / "data" / "models")
    add_restorer(tmp_path / "data" / "models", "lighter", lighter=0.4)
    assert tilewire(*command).exit_code == 0
    before = np.asarray(Image.open(tmp_path / "a-2x.png").convert("RGB")).astype(int)
    assert tilewire(*command, "--restore-faces").exit_code == 0
    after = np.asarray(Image.open(tmp_path / "a-2x.png").convert("RGB")).astype(int)
    assert cheek(after - before, 0) > 30
    named = tilewire(*command, "--restore-faces", "--face-model", "other")
    assert named.exit_code == 2
    assert "no model called 'other' that restores faces" in " ".join(named.output.split())
