"""The main job, over the socket and over HTTP."""

import base64
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import httpcore
import msgspec
import pytest

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import KEY, connected, make_image, new_uuid, open_image, until, upscale

T = TypeVar("T")


async def fetch(url: str) -> httpcore.Response:
    async with httpcore.AsyncConnectionPool() as pool:
        return await pool.request("GET", url)


async def test_an_image_comes_back_larger_at_its_url(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (result,) = await peer.ask(upscale(base64.b64encode(make_image(30, 20)).decode(), upscaleFactor=4))
    assert result["taskType"] == "upscale"
    assert result["imageURL"].startswith(server.url)
    response = await fetch(result["imageURL"])
    assert dict(response.headers)[b"content-type"] == b"image/png"
    assert open_image(response.content).size == (120, 80)
    assert not {"cost", "imageBase64Data", "imageDataURI", "status"} & result.keys()


@pytest.mark.parametrize("factor", [2, 3, 4, 1.5])
async def test_each_factor_gives_its_size(server: EmbeddedServer, factor: float) -> None:
    image = base64.b64encode(make_image(30, 20)).decode()
    async with connected(server) as peer:
        (result,) = await peer.ask(upscale(image, upscaleFactor=factor, outputType="base64Data"))
    assert open_image(base64.b64decode(result["imageBase64Data"])).size == (30 * factor, 20 * factor)


async def test_uploads_results_and_all_forms_of_input_can_be_upscaled(server: EmbeddedServer) -> None:
    data = make_image(20, 10, seed=3)
    encoded = base64.b64encode(data).decode()
    async with connected(server) as peer:
        (upload,) = await peer.ask({"taskType": "imageUpload", "taskUUID": new_uuid(), "image": encoded})
        first, second, third = await peer.ask(
            upscale(upload["imageUUID"]),
            upscale(f"data:image/png;base64,{encoded}"),
            {
                "taskType": "imageUpscale",
                "taskUUID": new_uuid(),
                "inputImage": encoded,
                "model": "realesr-animevideov3",
            },
        )
        (again,) = await peer.ask(upscale(first["imageUUID"], outputType=["URL", "base64Data", "dataURI"]))
    assert (
        first["inputImageUUID"] == second["inputImageUUID"] == third["inputImageUUID"] == upload["imageUUID"]
    )
    assert third["taskType"] == "imageUpscale"
    assert third["imageURL"].endswith(".jpg")
    assert (await fetch(upload["imageURL"])).content == data
    image = base64.b64decode(again["imageBase64Data"])
    assert open_image(image).size == (80, 40)
    assert again["imageDataURI"] == f"data:image/png;base64,{again['imageBase64Data']}"
    assert (await fetch(again["imageURL"])).content == image


async def test_messagepack_carries_image_bytes_both_ways(server: EmbeddedServer) -> None:
    async with connected(server, messagepack=True) as peer:
        (result,) = await peer.ask(upscale(make_image(16, 16, "JPEG"), outputType="base64Data"))
    assert open_image(result["imageBase64Data"]).size == (32, 32)


async def test_the_cost_is_exact(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (result,) = await peer.ask(
            upscale(base64.b64encode(make_image(100, 100)).decode(), upscaleFactor=4, includeCost=True)
        )
    assert result["cost"] == 0.000016  # 0.16 megapixels at 0.0001 USD


async def test_target_megapixels_sets_the_size(server: EmbeddedServer) -> None:
    image = base64.b64encode(make_image(40, 30)).decode()
    async with connected(server) as peer:
        (result,) = await peer.ask(
            upscale(image, upscaleFactor=None, targetMegapixels=0.0108, outputType="base64Data")
        )
    assert open_image(base64.b64decode(result["imageBase64Data"])).size == (120, 90)


async def test_a_frame_without_tasks_is_answered_with_nothing(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        await peer.send()
        assert await peer.receive() == {"data": []}


async def test_progress_is_told_when_asked_for(server: EmbeddedServer) -> None:
    task = upscale(base64.b64encode(make_image(720, 400)).decode(), includeProgress=True)
    shares = []
    async with connected(server) as peer:
        await peer.send(task)
        while (item := await peer.receive_item()).get("status") == "processing":
            shares.append(item["progress"])
    assert shares == sorted(shares)
    assert shares
    assert all(0 <= share < 100 and isinstance(share, int) for share in shares)
    assert "imageURL" in item


async def test_post_answers_with_all_results_of_the_array(server: EmbeddedServer) -> None:
    image = base64.b64encode(make_image()).decode()
    good, bad = upscale(image), upscale(image, upscaleFactor=17)
    async with httpcore.AsyncConnectionPool() as pool:
        response = await pool.request(
            "POST",
            f"{server.url}/v1",
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
            content=msgspec.json.encode([good, bad]),
        )
    body = msgspec.json.decode(response.content)
    assert response.status == 200
    assert [item["taskUUID"] for item in body["data"]] == [good["taskUUID"]]
    assert [item["taskUUID"] for item in body["errors"]] == [bad["taskUUID"]]


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"upscaleFactor": 1}, (30, 20)),
        ({"upscaleFactor": 5.5}, (165, 110)),
        ({"upscaleFactor": 16}, (480, 320)),
        ({"width": 300}, (300, 200)),
        ({"width": 200, "height": 200, "resizeMode": "crop"}, (200, 200)),
        ({"width": 90, "height": 200, "resizeMode": "stretch"}, (90, 200)),
        ({"width": 90, "height": 200, "resizeMode": "fill"}, (300, 200)),
    ],
)
async def test_results_have_the_size_that_was_asked_for(
    server: EmbeddedServer, asked: dict[str, object], size: tuple[int, int]
) -> None:
    async with connected(server) as peer:
        image = base64.b64encode(make_image(30, 20)).decode()
        task = upscale(image, outputType="base64Data", **{"upscaleFactor": None, **asked})
        (result,) = await peer.ask(task)
    assert open_image(base64.b64decode(result["imageBase64Data"])).size == size


async def test_a_task_with_its_image_takes_two_commits_beside_its_delivery(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    database, done = server.services.database, Counter[str]()
    run = database.run

    async def counted(function: Callable[..., T], *arguments: Any, **more: Any) -> T:
        done[getattr(function, "func", function).__name__] += 1
        return await run(function, *arguments, **more)

    async with connected(server) as peer:
        await peer.ask(upscale(base64.b64encode(make_image(seed=1)).decode(), outputFormat="JPG"))
        monkeypatch.setattr(database, "run", counted)
        await peer.ask(upscale(base64.b64encode(make_image(seed=2)).decode(), outputFormat="JPG"))
        await until(lambda: done["delivered"] == 1)
    assert {name: done[name] for name in done if name in TASK_COMMITS} == {
        "accept_with_inputs": 1,
        "succeed": 1,
        "delivered": 1,
    }


TASK_COMMITS = {
    "accept", "accept_with_inputs", "check_payable", "delivered", "find", "find_image", "keep", "known_input",
    "note_all_loose", "note_loose", "record_image", "record_input", "reserve", "succeed",
}  # fmt: skip
