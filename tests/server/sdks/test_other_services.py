"""Clients of other services against this server, unchanged but for the address and the key."""

import base64
import io
from urllib.parse import urlsplit

import httpcore
import pytest
from novita_client import NovitaClient
from novita_client.proto import V3TaskResponseStatus
from PIL import Image
from scenario_sdk import APIStatusError, Scenario
from webuiapi import WebUIApi

from server.serving import EmbeddedServer
from tests.server.support.harness import FAST_MODEL, KEY, make_image

PICTURE = make_image(24, 16)


def image_at(url: str) -> Image.Image:
    return Image.open(io.BytesIO(httpcore.request("GET", url).content))


@pytest.fixture
def webui(server: EmbeddedServer) -> WebUIApi:
    address = urlsplit(server.url)
    return WebUIApi(host=address.hostname, port=address.port, username="any", password=KEY)


def test_webuiapi_upscales_one_and_many(webui: WebUIApi) -> None:
    picture = Image.open(io.BytesIO(PICTURE))
    one = webui.extra_single_image(picture, upscaler_1=FAST_MODEL, upscaling_resize=3)
    assert one.image.size == (72, 48)
    size = {"resize_mode": 1, "upscaling_resize_w": 60, "upscaling_resize_h": 60}
    many = webui.extra_batch_images([picture, picture.rotate(90, expand=True)], upscaler_1=FAST_MODEL, **size)
    assert [each.size for each in many.images] == [(60, 60), (60, 60)]


def test_webuiapis_defaults_leave_the_image_as_it_is(webui: WebUIApi) -> None:
    picture = Image.open(io.BytesIO(PICTURE)).convert("RGB")
    for same in (webui.extra_single_image(picture).image, *webui.extra_batch_images([picture]).images):
        assert (same.format, same.tobytes()) == ("PNG", picture.tobytes())


def test_webuiapi_lists_and_asks(webui: WebUIApi) -> None:
    assert "R-ESRGAN 4x+" in [each["name"] for each in webui.get_upscalers()]
    assert webui.get_progress()["progress"] == 0
    assert webui.interrupt() == {}


def test_webuiapi_raises_with_the_reason(webui: WebUIApi) -> None:
    with pytest.raises(RuntimeError, match="could not find upscaler named Foo"):
        webui.extra_single_image(Image.open(io.BytesIO(PICTURE)), upscaler_1="Foo")


def test_scenarios_sdk_runs_a_model_and_gets_its_asset(server: EmbeddedServer) -> None:
    client = Scenario(base_url=f"{server.url}/v1", api_key=KEY, api_secret="any", max_retries=0)
    data_uri = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    body = {"image": data_uri, "upscaleFactor": 2}
    job = client.generate.run_model("model_upscale-v3", body=body).job
    while job.status not in ("success", "failure"):
        job = client.jobs.retrieve(job.job_id).job
    assert job.status == "success", job
    (asset_id,) = job.metadata.asset_ids
    assert image_at(client.assets.retrieve(asset_id).asset.url).size == (48, 32)
    newest, *_ = client.jobs.list(page_size=1, status="success")
    assert (newest.job_id, newest.metadata.asset_ids) == (job.job_id, [asset_id])
    with pytest.raises(APIStatusError, match="pageSize"):
        client.jobs.list(page_size=1000)
    with pytest.raises(APIStatusError, match="fractality") as caught:
        client.generate.run_model("model_upscale-v3", body=body | {"fractality": 50})
    assert caught.value.status_code == 400


def test_novitas_client_waits_for_an_upscale(server: EmbeddedServer) -> None:
    client = NovitaClient(KEY, server.url)
    request = {
        "image_base64": base64.b64encode(PICTURE).decode(),
        "model_name": FAST_MODEL,
        "scale_factor": 2,
    }
    taken = client._post("/v3/async/upscale", {"request": request})
    done = client.wait_for_task_v3(taken["task_id"])
    assert done.task.status == V3TaskResponseStatus.TASK_STATUS_SUCCEED
    assert image_at(done.images[0].image_url).size == (48, 32)
