"""Other services' requests become the same tasks: same pixels, limits and money; errors in their shapes."""

import asyncio
import base64
import io
import json
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops
from sqlalchemy import update

from server.http.providers import caller
from server.http.providers.caller import Caller
from server.serving import EmbeddedServer
from server.state.tables import accounts
from server.state.tasks import latest
from tests.server.conftest import StartServer
from tests.server.support.ask import BEARER, Answer, ask, finished
from tests.server.support.faces import CENTRES, HEIGHT, WIDTH, add_detector, add_restorer, portrait
from tests.server.support.harness import (
    FAST_MODEL,
    KEY,
    PATIENCE,
    Account,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    upscale,
)
from tests.server.support.stepped_device import SteppedDevice
from tests.server.support.web import Web

FACES = portrait(*CENTRES)
ENCODED = base64.b64encode(make_image(24, 16)).decode()


def a1111(server: EmbeddedServer) -> bytes:
    body = {"image": ENCODED, "upscaler_1": FAST_MODEL, "upscaling_resize": 2}
    answer = ask(server, "POST", "/sdapi/v1/extra-single-image", body=body)
    return base64.b64decode(answer.json["image"])


def a1111_batch(server: EmbeddedServer) -> bytes:
    body = {
        "imageList": [{"data": f"data:image/png;base64,{ENCODED}", "name": "a.png"}],
        "upscaler_1": FAST_MODEL,
        "resize_mode": 1,
        "upscaling_resize_w": 48,
        "upscaling_resize_h": 32,
    }
    answer = ask(server, "POST", "/sdapi/v1/extra-batch-images", body=body)
    (image,) = answer.json["images"]
    return base64.b64decode(image)


def novita_v2(server: EmbeddedServer) -> bytes:
    body = {"image": ENCODED, "upscaler_1": FAST_MODEL, "upscaling_resize": 2, "upscaler_2": "R-ESRGAN 4x+"}
    taken = ask(server, "POST", "/v2/upscale", body=body | {"gfpgan_visibility": None}).json
    assert taken["code"] == 0
    path = f"/v2/progress?task_id={taken['data']['task_id']}"
    data = finished(server, path, lambda answer: answer.json["data"]["status"] > 1).json["data"]
    assert (data["status"], data["progress"]) == (2, 1)
    return ask(server, "GET", data["imgs"][0].removeprefix(server.url)).body


def novita_v3(server: EmbeddedServer) -> bytes:
    body = {"request": {"image_base64": ENCODED, "model_name": FAST_MODEL, "scale_factor": 2}}
    taken = ask(server, "POST", "/v3/async/upscale", body=body, headers={"authorization": KEY}).json
    path = f"/v3/async/task-result?task_id={taken['task_id']}"
    done = finished(server, path, lambda answer: answer.json["task"]["status"] == "TASK_STATUS_SUCCEED").json
    assert done["images"][0]["image_type"] == "png"
    return ask(server, "GET", done["images"][0]["image_url"].removeprefix(server.url)).body


def scenario(server: EmbeddedServer) -> bytes:
    key = base64.b64encode(f"{KEY}:secret".encode()).decode()
    headers = {"authorization": f"Basic {key}"}
    kept = ask(server, "POST", "/v1/assets", body={"image": ENCODED, "name": "a"}, headers=headers).json
    body = {"image": kept["asset"]["id"], "scalingFactor": 2}
    job = ask(server, "POST", f"/v1/generate/custom/{FAST_MODEL}", body=body, headers=headers).json["job"]
    path = f"/v1/jobs/{job['jobId']}"
    done = finished(server, path, lambda answer: answer.json["job"]["status"] == "success").json["job"]
    asset = ask(server, "GET", f"/v1/assets/{done['metadata']['assetIds'][0]}").json["asset"]
    assert (asset["mimeType"], asset["properties"]["width"]) == ("image/png", 48)
    return ask(server, "GET", asset["url"].removeprefix(server.url)).body


def ask_for_batch(server: EmbeddedServer, account: Account, *images: str, **how: Any) -> Answer:
    body = {"imageList": [{"data": image} for image in images], "upscaler_1": FAST_MODEL}
    headers = {"authorization": f"Bearer {account.key}"}
    return ask(server, "POST", "/sdapi/v1/extra-batch-images", body=body | how, headers=headers)


def test_a_batch_is_not_begun_if_one_of_its_images_is_not_fit_and_the_error_names_that(
    server: EmbeddedServer,
) -> None:
    account, poor = open_account(server), open_account(server, credit=Decimal("0.000001"))
    cut_off = base64.b64encode(make_image(600, 600)[:-1000]).decode()  # its header is whole
    large = base64.b64encode(large_image()).decode()
    for third, how, named in (
        ("%%%", {}, "imageList[2].data is not"),
        (cut_off, {}, "imageList[2].data: "),
        (new_uuid(), {}, "imageList[2].data: there is no image"),
        (large, {"upscaling_resize": 16}, "imageList[2].data: the result"),
        ("%%%", {"upscaler_1": "None"}, "imageList[2].data is not"),
    ):
        answer = ask_for_batch(server, account, ENCODED, ENCODED, third, **how)
        assert 400 <= answer.status < 500
        assert named in str(answer.json["detail"])
        assert "inputImage" not in answer.body.decode()
    assert ask_for_batch(server, poor, ENCODED, ENCODED).status == 402
    for each in (account, poor):
        assert server.services.database.run_sync(latest, each.id, "a1111", 10) == []
        assert charges(server, each.id) == (0, 0)


def test_a_batch_that_fails_after_all_is_stopped(
    start_server: StartServer, device: SteppedDevice, web: Web
) -> None:
    server = start_server(private_networks=True)
    account = open_account(server)

    class GivenOnce(dict[str, bytes]):
        def get(self, path: str, default: Any = None) -> Any:
            return self.pop(path, default)

    web.files = GivenOnce({"/in.png": make_image(25, 16)})
    answer = ask_for_batch(server, account, ENCODED, f"{web.url}/in.png", upscaling_resize=4)
    assert "imageList[1].data: " in answer.json["detail"], answer.body
    web.files = {"/in.png": make_image(25, 16)}
    device.run_freely()
    done = ask_for_batch(server, account, ENCODED, f"{web.url}/in.png", upscaling_resize=4).json["images"]
    assert [open_image(base64.b64decode(image)).size for image in done] == [(96, 64), (100, 64)]
    records = server.services.database.run_sync(latest, account.id, "a1111", 10)
    assert sorted(record.status.name for record in records) == ["FAILED", "FAILED", "SUCCEEDED", "SUCCEEDED"]
    assert charges(server, account.id)[1] == 2


async def test_a_second_upscaler_is_blended_into_the_first(server: EmbeddedServer) -> None:
    second = "realesrgan-x4plus-anime"
    blend = {"upscaler_2": "R-ESRGAN 4x+ Anime6B", "extras_upscaler_2_visibility": 0.4}
    body = {"image": ENCODED, "upscaler_1": FAST_MODEL, "upscaling_resize": 2, **blend}
    async with connected(server) as peer:
        (expected,) = await peer.ask(
            upscale(ENCODED, outputType="base64Data", blend={"model": second, "visibility": 0.4})
        )
    from_a1111 = ask(server, "POST", "/sdapi/v1/extra-single-image", body=body).json["image"]
    taken = ask(server, "POST", "/v2/upscale", body=body).json["data"]["task_id"]
    path = f"/v2/progress?task_id={taken}"
    (url,) = finished(server, path, lambda answer: answer.json["data"]["status"] > 1).json["data"]["imgs"]
    from_novita = ask(server, "GET", url.removeprefix(server.url)).body
    same = base64.b64decode(expected["imageBase64Data"])
    for data in (base64.b64decode(from_a1111), from_novita):
        pictures = [Image.open(io.BytesIO(each)) for each in (data, same)]
        assert ImageChops.difference(*pictures).getbbox() is None


@pytest.mark.parametrize("provider", [a1111, a1111_batch, novita_v2, novita_v3, scenario])
async def test_each_gives_the_picture_that_the_socket_gives(server: EmbeddedServer, provider: Any) -> None:
    async with connected(server) as peer:
        task = upscale(
            ENCODED, outputType="base64Data", outputFormat="PNG", model=FAST_MODEL, upscaleFactor=2
        )
        (expected,) = await peer.ask(task)
    same = [
        Image.open(io.BytesIO(data))
        for data in (provider(server), base64.b64decode(expected["imageBase64Data"]))
    ]
    assert ImageChops.difference(*same).getbbox() is None


def stability(server: EmbeddedServer) -> bytes:
    path = "/v2beta/stable-image/upscale/fast"
    return ask(server, "POST", path, form={"image": make_image(24, 16)}, headers=BEARER).body


def photio(server: EmbeddedServer) -> bytes:
    answer = ask(server, "POST", "/v1/inference/upscale", body={"image": ENCODED, "upscale_by": 4}).json
    return base64.b64decode(answer["body"])


@pytest.mark.parametrize("provider", [stability, photio])
async def test_where_no_model_can_be_named_it_is_that_of_the_socket(
    server: EmbeddedServer, provider: Any
) -> None:
    async with connected(server) as peer:
        task = upscale(ENCODED, outputType="base64Data", outputFormat="PNG", upscaleFactor=4)
        task.pop("model")
        (expected,) = await peer.ask(task)
    same = [
        Image.open(io.BytesIO(data))
        for data in (provider(server), base64.b64decode(expected["imageBase64Data"]))
    ]
    assert ImageChops.difference(*same).getbbox() is None


@pytest.mark.parametrize("accept", ["image/*", "application/json"])
def test_stability_fast_makes_it_four_times_as_large(server: EmbeddedServer, accept: str) -> None:
    form = {"image": make_image(24, 16), "prompt": "a cat", "output_format": "webp"}
    answer = ask(
        server, "POST", "/v2beta/stable-image/upscale/fast", form=form, headers=BEARER | {"accept": accept}
    )
    data = answer.body if accept == "image/*" else base64.b64decode(answer.json["image"])
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("WEBP", (96, 64))
    assert accept != "image/*" or answer.headers["finish-reason"] == "SUCCESS"


@pytest.mark.parametrize("accept", ["image/png", "application/json", "*/*"])
def test_stability_v1_doubles(server: EmbeddedServer, accept: str) -> None:
    path = "/v1/generation/esrgan-v1-x2plus/image-to-image/upscale"
    answer = ask(
        server, "POST", path, form={"image": make_image(24, 16)}, headers=BEARER | {"accept": accept}
    )
    data = answer.body
    if accept != "image/png":
        (artifact,) = answer.json["artifacts"]
        assert artifact["finishReason"] == "SUCCESS"
        data = base64.b64decode(artifact["base64"])
    assert Image.open(io.BytesIO(data)).size == (48, 32)


def test_photio_answers_in_its_envelope(server: EmbeddedServer) -> None:
    answer = ask(
        server,
        "POST",
        "/v1/inference/upscale",
        body={"image": ENCODED, "upscale_by": 4},
        headers={"x-photio-key": KEY},
    ).json
    assert answer["status_code"] == 200
    assert Image.open(io.BytesIO(base64.b64decode(answer["body"]))).size == (96, 64)


ENDPOINTS = (
    ("/sdapi/v1/extra-single-image", {"body": {"image": ENCODED, "upscaler_1": FAST_MODEL}}, "detail"),
    ("/v2beta/stable-image/upscale/fast", {"form": {"image": make_image()}}, "errors"),
    ("/v1/generation/esrgan-v1-x2plus/image-to-image/upscale", {"form": {"image": make_image()}}, "message"),
    ("/v3/async/upscale", {"body": {"request": {"image_base64": ENCODED}}}, "message"),
    ("/v1/inference/upscale", {"body": {"image": ENCODED}}, "body"),
    ("/v1/generate/upscale", {"body": {"image": ENCODED}}, "reason"),
)


@pytest.mark.parametrize(("path", "request_", "words"), ENDPOINTS)
def test_a_wrong_key_no_key_and_no_money_are_errors_of_the_service(
    server: EmbeddedServer, path: str, request_: Any, words: str
) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        answer = ask(server, "POST", path, headers=headers, **request_)
        assert answer.status == 401
        assert answer.json[words]
    poor = open_account(server, credit=None)
    server.services.database.run_sync(_spend_all, poor.id)
    answer = ask(server, "POST", path, headers={"authorization": f"Bearer {poor.key}"}, **request_)
    assert (answer.status, bool(answer.json[words])) == (402, True)
    assert charges(server, poor.id) == (0, 0)


def test_a_key_in_no_encoding_is_a_wrong_key_and_a_form_whose_boundary_is_too_long_is_no_form(
    server: EmbeddedServer,
) -> None:
    answer = ask(server, "GET", "/v1/models", headers={"authorization": b"Basic \xe9\xe9"})
    assert (answer.status, answer.json["error"]) == (401, "missingApiKey")
    headers = BEARER | {"content-type": f"multipart/form-data; boundary={'x' * 300}"}
    answer = ask(server, "POST", "/v2beta/stable-image/upscale/fast", headers=headers)
    assert (answer.status, answer.json["name"]) == (400, "bad_request")


@pytest.mark.each_database
def test_an_id_that_no_database_can_hold_is_not_found(start_server: StartServer) -> None:
    server = start_server()
    assert ask(server, "GET", "/v3/async/task-result?task_id=%00").status == 404
    assert ask(server, "GET", "/v2/progress?task_id=%00").json["code"] == 3


def test_what_is_too_large_for_the_server_is_an_error_of_the_service(start_server: StartServer) -> None:
    server = start_server(max_frame_bytes=100_000)
    padding = "x" * 100_000
    for path, request, words in ENDPOINTS:
        kind = "form" if "form" in request else "body"
        answer = ask(server, "POST", path, **{kind: {**request[kind], "padding": padding}})
        assert (answer.status, "100000" in str(answer.json[words])) == (413, True), answer.body
    answer = ask(server, "POST", "/v2/upscale", body={"image": ENCODED, "padding": padding})
    assert (answer.status, answer.json["code"]) == (200, 6)


def _spend_all(connection: Any, account: Any) -> None:
    connection.execute(update(accounts).where(accounts.c.id == account).values(balance=0))


DEFAULTS = [
    (
        "/v1/inference/upscale",
        {
            "prompt": "",
            "negative_prompt": "worst quality, low quality, illustration, 3d, 2d, painting, cartoons, sketch",
            "quality": "LOW",
            "denoising_strength": 0.2,
        },
    ),
    (
        "/v1/generate/custom/model_upscale-v3?dryRun=1",
        {
            "preset": "precise",
            "style": "standard",
            "strength": 0.1,
            "guidanceScale": 6,
            "controlnetConditioningScale": 0.8,
            "styleStrength": 0.5,
            "tileStyle": False,
            "prompt": "",
            "negativePrompt": "",
            "seed": 5,
        },
    ),
]


@pytest.mark.parametrize(("path", "defaults"), DEFAULTS)
def test_a_services_own_defaults_ask_for_no_diffusion(
    server: EmbeddedServer, path: str, defaults: dict[str, Any]
) -> None:
    same = [ask(server, "POST", path, body={"image": ENCODED} | more) for more in ({}, defaults)]
    assert same[0].status in (200, 269)
    assert same[1].body == same[0].body


def large_image() -> bytes:
    """One whose result would have more than 128 megapixels at ×4."""
    buffer = io.BytesIO()
    Image.new("L", (3000, 3000)).save(buffer, "PNG")
    return buffer.getvalue()


BAD = [
    ("/sdapi/v1/extra-single-image", {"body": b"{"}, 422, "JSON"),
    (
        "/sdapi/v1/extra-single-image",
        {"body": {"image": ENCODED, "resize_mode": 2}},
        422,
        '["body","resize_mode"]',
    ),
    ("/sdapi/v1/extra-batch-images", {"body": {"upscaler_1": FAST_MODEL}}, 422, '"imageList"]'),
    ("/sdapi/v1/extra-single-image", {"body": {"image": ""}}, 400, "image"),
    ("/sdapi/v1/extra-single-image", {"body": {"image": "%%%", "upscaler_1": FAST_MODEL}}, 400, "image"),
    (
        "/sdapi/v1/extra-single-image",
        {"body": {"image": ENCODED, "upscaler_1": "Foo"}},
        400,
        "upscaler named Foo",
    ),
    (
        "/sdapi/v1/extra-single-image",
        {"body": {"image": ENCODED, "upscaler_1": FAST_MODEL, "upscaling_resize": 99}},
        422,
        "upscaling_resize",
    ),
    (
        "/sdapi/v1/extra-single-image",
        {"body": {"image": ENCODED, "upscaler_1": FAST_MODEL, "gfpgan_visibility": 0.5}},
        400,
        "gfpgan_visibility",
    ),
    (
        "/sdapi/v1/extra-single-image",
        {
            "body": {
                "image": ENCODED,
                "upscaler_1": FAST_MODEL,
                "upscaler_2": "Foo",
                "extras_upscaler_2_visibility": 0.5,
            }
        },
        400,
        "upscaler named Foo",
    ),
    ("/v2beta/stable-image/upscale/fast", {"form": {}}, 400, "image: is required"),
    (
        "/v2beta/stable-image/upscale/fast",
        {"form": {"image": large_image()}},
        400,
        "image: the result",
    ),
    ("/v2beta/stable-image/upscale/fast", {"body": {"image": ENCODED}}, 400, "multipart"),
    ("/v2beta/stable-image/upscale/fast", {"form": {"image": b"GIF89a..."}}, 400, "image"),
    (
        "/v2beta/stable-image/upscale/fast",
        {"form": {"image": make_image(), "output_format": "gif"}},
        400,
        "output_format",
    ),
    (
        "/v2beta/stable-image/upscale/conservative",
        {"form": {"image": make_image()}},
        400,
        "prompt: is required",
    ),
    (
        "/v2beta/stable-image/upscale/creative",
        {"form": {"image": make_image(), "prompt": "x"}},
        400,
        "models export",
    ),
    ("/v1/generation/nothing/image-to-image/upscale", {"form": {"image": make_image()}}, 404, "nothing"),
    (
        "/v1/generation/esrgan-v1-x2plus/image-to-image/upscale",
        {"form": {"image": make_image(), "width": "600", "height": "600"}},
        400,
        "width",
    ),
    ("/v3/async/upscale", {"body": {"request": {}}}, 400, "image_base64"),
    (
        "/v3/async/upscale",
        {"body": {"request": {"image_base64": ENCODED, "scale_factor": 9}}},
        400,
        "scale_factor",
    ),
    (
        "/v3/async/upscale",
        {"body": {"request": {"image_base64": ENCODED, "model_name": "x"}}},
        400,
        "model_name",
    ),
    *(
        (
            "/v3/async/upscale",
            {"body": {"request": {"image_base64": ENCODED, "model_name": FAST_MODEL}, "extra": extra}},
            400,
            named,
        )
        for extra, named in (
            ({"enterprise_plan": {"enabled": True}}, "extra.enterprise_plan"),
            ({"webhook": {"url": "", "test_mode": {"enabled": True}}}, "extra.webhook.test_mode"),
            ({"custom_storage": {"aws_s3": {"bucket": "x"}}}, "extra.custom_storage"),
        )
    ),
    ("/v3/async/image-upscaler", {"body": {"resolution": "2k"}}, 400, "image"),
    ("/v3/async/image-upscaler", {"body": {"image": ENCODED, "resolution": "16k"}}, 400, "resolution"),
    ("/v3/async/image-upscaler", {"body": {"image": ENCODED, "output_format": "gif"}}, 400, "output_format"),
    ("/v1/inference/upscale", {"body": {"image": ENCODED, "upscale_by": 3}}, 400, "upscale_by"),
    ("/v1/inference/upscale", {"body": {"image": ENCODED, "prompt": "x"}}, 400, "models export"),
    ("/v1/generate/upscale", {"body": {"image": ENCODED, "fractality": 3}}, 400, "fractality"),
    ("/v1/generate/upscale", {"body": {"image": ENCODED, "scalingFactor": 20}}, 400, "scalingFactor"),
    ("/v1/generate/custom/nothing", {"body": {"image": ENCODED}}, 404, "nothing"),
]


@pytest.mark.parametrize(("path", "request_", "status", "named"), BAD)
def test_what_is_wrong_is_named_as_the_service_names_it(
    server: EmbeddedServer, path: str, request_: Any, status: int, named: str
) -> None:
    answer = ask(server, "POST", path, **request_)
    assert answer.status == status, answer.body
    assert named in answer.body.decode()
    assert "Traceback" not in answer.body.decode()
    assert "inputImage" not in answer.body.decode()


LONG = "x" * 3000


@pytest.mark.parametrize(
    ("path", "request_", "said"),
    [
        ("/sdapi/v1/extra-single-image", {"body": {"image": ENCODED, "upscaler_1": LONG}}, "offered are: R-"),
        ("/v2/upscale", {"body": {"image": ENCODED, "upscaler_1": LONG}}, "there is no model"),
        (
            "/v3/async/upscale",
            {"body": {"request": {"image_base64": ENCODED, "model_name": LONG}}},
            "no model",
        ),
        (f"/v1/generation/{LONG}/image-to-image/upscale", {"form": {"image": b"?"}}, "was not found"),
        (f"/v1/generate/custom/{LONG}", {"body": {"image": ENCODED}}, "no model"),
    ],
)
def test_an_absurdly_long_name_is_cut_where_it_is_quoted(
    server: EmbeddedServer, path: str, request_: Any, said: str
) -> None:
    answer = ask(server, "POST", path, **request_).body.decode()
    assert said in answer
    assert "x" * 65 not in answer


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 1),
        ({"image": ENCODED, "upscaler_1": "no such"}, 2),
        ({"image": ENCODED, "upscaler_2": "no such", "extras_upscaler_2_visibility": 1}, 2),
        ({"image": ENCODED, "upscaling_resize": -1}, 6),
        ({"image": ENCODED, "codeformer_visibility": 1}, 10),
    ],
)
def test_novita_v2_tells_by_its_codes(server: EmbeddedServer, body: Any, code: int) -> None:
    answer = ask(server, "POST", "/v2/upscale", body=body)
    assert (answer.status, answer.json["code"], answer.json["data"]) == (200, code, None)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2beta/results/abc", 404),
        (f"/v2beta/results/{'0' * 64}", 404),
        ("/v3/async/task-result?task_id=nothing", 404),
        ("/v3/async/task-result", 404),
        ("/v1/jobs/nothing", 404),
        ("/v1/assets/nothing", 404),
        ("/v1/models/nothing", 404),
    ],
)
def test_what_is_not_there_is_not_found(server: EmbeddedServer, path: str, status: int) -> None:
    assert ask(server, "GET", path).status == status


ELSEWHERE = [
    ("POST", "/sdapi/v1/txt2img", "detail"),
    ("POST", "/v3/async/txt2img", "reason"),
    ("PUT", "/v3/async/upscale", "reason"),
    ("POST", "/v2beta/stable-image/generate/core", "errors"),
    ("POST", "/v1/generation/esrgan-v1-x2plus/text-to-image", "message"),
    ("GET", "/v1/assets", "reason"),
    ("DELETE", "/v1/assets/nothing", "reason"),
    ("GET", "/v1/inference/upscale", "body"),
]


@pytest.mark.parametrize(("method", "path", "words"), ELSEWHERE)
def test_what_a_service_has_and_this_server_has_not_is_an_error_of_the_service(
    server: EmbeddedServer, method: str, path: str, words: str
) -> None:
    answer = ask(server, method, path, body={})
    assert (answer.status, path in str(answer.json[words]) or words == "reason") == (404, True), answer.body
    assert ask(server, method, path, body={}, headers={}).status == 401
    novita = ask(server, "POST", "/v2/txt2img", body={})
    assert (novita.status, novita.json["code"]) == (200, 10)


def test_too_many_requests_of_an_address_are_an_error_of_the_service(start_server: StartServer) -> None:
    server = start_server(requests_per_second=0.001, request_burst=2)
    for _ in range(2):
        ask(server, "GET", "/v3/user")
    refused = [
        ask(server, "GET", path) for path in ("/v3/user", "/v2/progress", "/sdapi/v1/upscalers", "/healthz")
    ]
    assert [answer.status for answer in refused] == [429, 200, 429, 429]
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    told = [answer.json for answer in refused]
    assert (told[0]["reason"], told[1]["code"], told[3]["errors"][0]["code"]) == (
        "REQUEST_RATE_LIMIT",
        5,
        "requestRateLimit",
    )
    assert "requests per second" in told[2]["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/sdapi/v1/upscalers",
        "/sdapi/v1/realesrgan-models",
        "/sdapi/v1/progress",
        "/sdapi/v1/options",
        "/sdapi/v1/scripts",
        "/v1/engines/list",
        "/v1/user/account",
        "/v1/user/balance",
        "/v3/user",
        "/v1/models",
    ],
)
def test_what_clients_look_up_is_there(server: EmbeddedServer, path: str) -> None:
    assert ask(server, "GET", path).status == 200
    assert ask(server, "GET", path, headers={}).status == 401


def test_upscalers_have_what_clients_check(server: EmbeddedServer) -> None:
    found = ask(server, "GET", "/sdapi/v1/upscalers").json
    assert found[0]["name"] == "None"
    assert {"R-ESRGAN 4x+", "R-ESRGAN 4x+ Anime6B"} <= {each["name"] for each in found}
    for each in found:
        assert set(each) == {"name", "model_name", "model_path", "model_url", "scale"}
        assert isinstance(each["scale"], int)


async def test_without_a_key_only_programs_of_this_machine_come_in_and_only_if_that_is_set(
    start_server: StartServer,
) -> None:
    server = start_server(keyless_account="walk-in")
    path = "/sdapi/v1/upscalers"
    assert ask(server, "GET", path, headers={}).status == 200
    for page in (
        {"origin": "https://evil.example"},
        {"x-forwarded-for": "9.9.9.9"},
        {"host": "evil.example"},
    ):
        assert ask(server, "GET", path, headers=page).status == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v3/async/upscale",
            {"request": {"image_base64": ENCODED, "model_name": FAST_MODEL}, "extra": None},
        ),
        (
            "/v3/async/upscale",
            {
                "request": {"image_base64": ENCODED, "model_name": FAST_MODEL, "scale_factor": None},
                "extra": {"webhook": {"url": None, "test_mode": None}, "enterprise_plan": None},
            },
        ),
        ("/v1/assets", {"image": ENCODED, "name": None}),
        (
            "/sdapi/v1/extra-batch-images",
            {"imageList": [{"data": ENCODED, "name": None}], "upscaling_resize": None},
        ),
    ],
)
def test_null_is_as_not_given(server: EmbeddedServer, path: str, body: dict[str, Any]) -> None:
    answer = ask(server, "POST", path, body=body)
    assert answer.status == 200, answer.body


async def test_novitas_webhook_gets_what_its_task_result_says(start_server: StartServer, web: Web) -> None:
    server, before = start_server(private_networks=True), time.time()
    request = {"image_base64": ENCODED, "model_name": FAST_MODEL, "scale_factor": 2}
    body = {"request": request, "extra": {"webhook": {"url": f"{web.url}/hook"}}}
    taken = ask(server, "POST", "/v3/async/upscale", body=body).json
    told = json.loads((await web.receive()).body)
    result = ask(server, "GET", f"/v3/async/task-result?task_id={taken['task_id']}").json
    assert told["event_type"] == "ASYNC_TASK_RESULT"
    assert told["payload"] == result
    times = result["extra"]["debug_info"]
    taken_on, ended = int(times["submit_time_ms"]), int(times["complete_time_ms"])
    assert before * 1000 - 1 <= taken_on < ended <= time.time() * 1000 + 1
    v2 = ask(server, "GET", f"/v2/progress?task_id={taken['task_id']}").json["data"]["debug_info"]
    assert (v2["submit_time_ms"], v2["finish_time_ms"]) == (taken_on, ended)
    assert result["task"]["status"] == "TASK_STATUS_SUCCEED"


def test_novita_image_upscaler_makes_the_longer_side_as_long_as_it_says(
    start_server: StartServer, device: SteppedDevice, web: Web
) -> None:
    device.run_freely()
    server = start_server(private_networks=True)
    web.files["/in.png"] = make_image(256, 128)
    for body, how in (
        ({}, ("jpeg", (4096, 2048))),
        ({"resolution": "2k", "output_format": "webp"}, ("webp", (2048, 1024))),
    ):
        taken = ask(
            server, "POST", "/v3/async/image-upscaler", body={"image": f"{web.url}/in.png", **body}
        ).json
        path = f"/v3/async/task-result?task_id={taken['task_id']}"
        done = finished(
            server, path, lambda answer: answer.json["task"]["status"] == "TASK_STATUS_SUCCEED"
        ).json
        (image,) = done["images"]
        data = ask(server, "GET", image["image_url"].removeprefix(server.url)).body
        assert (image["image_type"], open_image(data).size) == how
    large = {"image": ENCODED, "resolution": "8k"}  # 24 pixels wide
    task = ask(server, "POST", "/v3/async/image-upscaler", body=large)
    assert (task.status, "resolution" in task.json["message"]) == (400, True)


async def test_a_poll_waits_a_moment_for_a_task_that_is_being_worked_on(
    start_server: StartServer, device: SteppedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "_LINGER", PATIENCE)
    comes = threading.Event()
    linger = Caller.linger

    async def noted(self: Caller, task_uuid: str) -> None:
        comes.set()
        await linger(self, task_uuid)

    monkeypatch.setattr(Caller, "linger", noted)
    server = start_server()
    request = {"image_base64": ENCODED, "model_name": FAST_MODEL, "scale_factor": 4}
    task = ask(server, "POST", "/v3/async/upscale", body={"request": request}).json["task_id"]
    poll = asyncio.create_task(asyncio.to_thread(ask, server, "GET", f"/v3/async/task-result?task_id={task}"))
    assert await asyncio.to_thread(comes.wait, PATIENCE)
    device.run_freely()
    assert (await poll).json["task"]["status"] == "TASK_STATUS_SUCCEED"


def test_a_poll_does_not_wait_where_connections_are_scarce(
    start_server: StartServer, device: SteppedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "_LINGER", 2 * PATIENCE)
    server = start_server(max_connections_per_account=2)
    request = {"image_base64": ENCODED, "model_name": FAST_MODEL, "scale_factor": 4}
    task = ask(server, "POST", "/v3/async/upscale", body={"request": request}).json["task_id"]
    found = ask(server, "GET", f"/v3/async/task-result?task_id={task}").json["task"]["status"]
    assert found in ("TASK_STATUS_QUEUED", "TASK_STATUS_PROCESSING")


async def test_a_task_of_the_socket_is_reported_by_the_url_of_its_image(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (done,) = await peer.ask(upscale(ENCODED, outputType="base64Data"))
    task, image = done["taskUUID"], done["imageUUID"]
    v2 = ask(server, "GET", f"/v2/progress?task_id={task}").json["data"]
    v3 = ask(server, "GET", f"/v3/async/task-result?task_id={task}").json
    job = ask(server, "GET", f"/v1/jobs/{task}").json["job"]
    asset = ask(server, "GET", f"/v1/assets/{image}").json["asset"]
    assert v2["imgs"] == [asset["url"]] == [each["image_url"] for each in v3["images"]]
    assert job["metadata"]["assetIds"] == [image]


def test_scenario_tells_the_true_cost_in_creative_units(server: EmbeddedServer) -> None:
    account = open_account(server)
    headers = {"authorization": f"Bearer {account.key}"}
    asset = ask(server, "POST", "/v1/assets", body={"image": ENCODED}, headers=headers).json["asset"]["id"]
    path = f"/v1/generate/custom/{FAST_MODEL}"
    for image in (asset, ENCODED):
        before, _ = charges(server, account.id)
        body = {"image": image, "upscaleFactor": 2}
        dry = ask(server, "POST", f"{path}?dryRun=true", body=body, headers=headers)
        assert (dry.status, charges(server, account.id)[0]) == (269, before)
        taken = ask(server, "POST", path, body=body, headers=headers).json
        job = f"/v1/jobs/{taken['job']['jobId']}"
        while (done := ask(server, "GET", job, headers=headers).json["job"])["status"] != "success":
            assert done["billing"]["cuCost"] == dry.json["creativeUnitsCost"]
        cost = (charges(server, account.id)[0] - before) / 1e7
        assert cost > 0
        for told in (dry.json["creativeUnitsCost"], taken["creativeUnitsCost"], done["billing"]["cuCost"]):
            assert told == pytest.approx(cost)
    ended = ask(server, "POST", f"{job}/action", body={"action": "cancel"}, headers=headers)
    assert (ended.status, ended.json["reason"][:6]) == (404, "jobId:")
    wrong = ask(
        server, "POST", f"{path}?dryRun=true", body={"image": "x", "upscaleFactor": 2}, headers=headers
    )
    assert wrong.status == 400


def test_jobs_are_listed_by_pages_the_newest_first(server: EmbeddedServer) -> None:
    account = open_account(server)
    headers = {"authorization": f"Bearer {account.key}"}
    made = []
    for _ in range(3):
        body = {"image": f"data:image/png;base64,{ENCODED}", "scalingFactor": 2}
        job = ask(server, "POST", "/v1/generate/upscale", body=body, headers=headers).json["job"]
        made.append(job["jobId"])
    seen, token = [], ""
    while token is not None:
        more = f"&paginationToken={token}" if token else ""
        page = ask(server, "GET", f"/v1/jobs?pageSize=2{more}", headers=headers).json
        seen += [job["jobId"] for job in page["jobs"]]
        token = page.get("nextPaginationToken")
    assert seen == made[::-1]
    assert ask(server, "GET", "/v1/jobs?paginationToken=x", headers=headers).status == 400
    others = {"authorization": f"Bearer {open_account(server).key}"}
    assert ask(server, "GET", "/v1/jobs", headers=others).json == {"jobs": []}


@pytest.fixture
def restoring(start_server: StartServer, tmp_path: Path) -> EmbeddedServer:
    """A server that restores faces, by models called as these services call theirs."""
    add_detector(tmp_path / "added")
    add_restorer(tmp_path / "added", "gfpgan-x", lighter=0.4)
    add_restorer(tmp_path / "added", "codeformer-x", lighter=0.4, weight=True)
    return start_server(added_models=tmp_path / "added")


def brightness(encoded: str) -> float:
    """Beside the mark in the middle of a face."""
    x, y = CENTRES[0]
    image = open_image(base64.b64decode(encoded)).convert("L").resize((WIDTH, HEIGHT))
    return float(np.asarray(image)[y : y + 4, x - 12 : x - 6].mean())


def test_a1111_restores_faces_by_the_model_that_it_names(restoring: EmbeddedServer) -> None:
    def extras(**how: Any) -> Answer:
        body = {"image": base64.b64encode(FACES).decode(), "upscaler_1": FAST_MODEL, "upscaling_resize": 2}
        return ask(restoring, "POST", "/sdapi/v1/extra-single-image", body=body | how)

    plain = brightness(extras().json["image"])
    for how, change in (
        ({"gfpgan_visibility": 1, "upscale_first": True}, 51),
        ({"gfpgan_visibility": 0.5}, 25.5),
        ({"codeformer_visibility": 1, "codeformer_weight": 0}, 51),
        ({"codeformer_visibility": 1, "codeformer_weight": 0.5, "upscale_first": True}, 25.5),
    ):
        assert brightness(extras(**how).json["image"]) - plain == pytest.approx(change, abs=6)
    alone = extras(upscaler_1="None", gfpgan_visibility=1, upscaling_resize=4).json["image"]
    assert open_image(base64.b64decode(alone)).size == (WIDTH, HEIGHT), "without an upscaler the size stays"
    assert brightness(alone) - brightness(base64.b64encode(FACES).decode()) == pytest.approx(51, abs=6)
    both = extras(gfpgan_visibility=1, codeformer_visibility=1)
    assert (both.status, "not both" in both.json["detail"]) == (400, True)
    listed = ask(restoring, "GET", "/sdapi/v1/face-restorers").json
    assert [each["name"] for each in listed] == ["codeformer-x", "gfpgan-x"]


def test_novita_restores_faces_too_and_says_what_is_missing(
    restoring: EmbeddedServer, server: EmbeddedServer
) -> None:
    body = {"image": base64.b64encode(FACES).decode(), "upscaler_1": FAST_MODEL, "gfpgan_visibility": 1}
    task = ask(restoring, "POST", "/v2/upscale", body=body).json["data"]["task_id"]
    while (found := ask(restoring, "GET", f"/v2/progress?task_id={task}").json["data"])["status"] < 2:
        pass
    assert found["status"] == 2
    missing = ask(server, "POST", "/v2/upscale", body=body).json
    assert missing["code"] == 10
    assert "tilewire models pull gfpgan-1.4" in missing["msg"]
