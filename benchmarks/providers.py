"""Upscales by each provider's shape beside `POST /v1`: output megapixels per second, and their ratio.

    python -m benchmarks.end_to_end providers [MODEL [SIDE]]

Eight clients send photographs of SIDE × SIDE pixels (default 256), each as clients of that service do: with
their way to give the image, to wait for the result and to get it. The peer does the same by `POST /v1`: the
same model, size and format, the image inline, and the result in the answer, or fetched where the provider's
client fetches it. Services that name no model get the server's default one, as their peer does.
"""

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import httpcore

from benchmarks.report import KEY, Report, gpu_name, median, tilewire

__all__ = ["compare"]

ROUNDS: Final = 5
_POLL_EVERY: Final = 0.01
_BOUNDARY: Final = "----tilewire"

Upscale = Callable[["_Client", bytes, str], Awaitable[int]]
"""Upscales an image by a model; returns the bytes of the result."""


class _Client:
    """One client with a connection of its own."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, url: str) -> None:
        self._pool = pool
        self._url = url

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        form: dict[str, bytes] | None = None,
        **headers: str,
    ) -> Any:
        """The answer: decoded if it is JSON, else its bytes."""
        sent = {"authorization": f"Bearer {KEY}", **headers}
        content = b""
        if form is not None:
            sent["content-type"] = f"multipart/form-data; boundary={_BOUNDARY}"
            parts = (
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
                + value
                + b"\r\n"
                for name, value in form.items()
            )
            content = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
        elif body is not None:
            sent["content-type"] = "application/json"
            content = json.dumps(body).encode()
        url = path if "://" in path else self._url + path
        response = await self._pool.request(method, url, headers=sent, content=content)
        if response.status not in (200, 201, 202):
            raise RuntimeError(f"{method} {path}: {response.status} {response.content[:300]!r}")
        kinds = {name.lower(): value for name, value in response.headers}
        is_json = kinds.get(b"content-type", b"").startswith(b"application/json")
        return json.loads(response.content) if is_json else response.content

    async def poll(self, path: str, is_done: Callable[[Any], bool]) -> Any:
        """The answer that is the last one."""
        while True:  # as clients of these services do
            if is_done(answer := await self.ask("GET", path)):
                return answer
            await asyncio.sleep(_POLL_EVERY)


class _Peer(NamedTuple):
    """How `POST /v1` is asked for the same."""

    image_format: str
    fetched: bool = False
    uploaded: bool = False
    own_model: bool = True


async def _post(client: _Client, image: bytes, model: str, peer: _Peer) -> int:
    given = _base64(image)
    if peer.uploaded:
        task = {"taskType": "imageUpload", "taskUUID": str(uuid.uuid4()), "image": given}
        given = (await client.ask("POST", "/v1", [task]))["data"][0]["imageUUID"]
    task = {
        "taskType": "upscale",
        "taskUUID": str(uuid.uuid4()),
        "inputs": {"image": given},
        "upscaleFactor": 4,
        "outputFormat": peer.image_format,
        "outputType": "URL" if peer.fetched else "base64Data",
        **({"model": model} if peer.own_model else {}),
    }
    (result,) = (await client.ask("POST", "/v1", [task]))["data"]
    if peer.fetched:
        return len(await client.ask("GET", result["imageURL"]))
    return len(base64.b64decode(result["imageBase64Data"]))


async def _a1111(client: _Client, image: bytes, model: str) -> int:
    body = {"image": _base64(image), "upscaler_1": model, "upscaling_resize": 4}
    return len(base64.b64decode((await client.ask("POST", "/sdapi/v1/extra-single-image", body))["image"]))


async def _stability(client: _Client, image: bytes, _model: str) -> int:
    path = "/v2beta/stable-image/upscale/fast"
    return len(
        await client.ask("POST", path, form={"image": image, "output_format": b"jpeg"}, accept="image/*")
    )


async def _photio(client: _Client, image: bytes, _model: str) -> int:
    body = {"image": _base64(image), "upscale_by": 4}
    answer = await client.ask("POST", "/v1/inference/upscale", body, **{"x-photio-key": KEY})
    return len(base64.b64decode(answer["body"]))


async def _novita_v2(client: _Client, image: bytes, model: str) -> int:
    body = {"image": _base64(image), "upscaler_1": model, "upscaling_resize": 4}
    task = (await client.ask("POST", "/v2/upscale", body))["data"]["task_id"]
    done = await client.poll(f"/v2/progress?task_id={task}", lambda answer: answer["data"]["status"] > 1)
    return len(await client.ask("GET", done["data"]["imgs"][0]))


async def _novita_v3(client: _Client, image: bytes, model: str) -> int:
    body = {"request": {"image_base64": _base64(image), "model_name": model, "scale_factor": 4}}
    task = (await client.ask("POST", "/v3/async/upscale", body))["task_id"]
    path = f"/v3/async/task-result?task_id={task}"
    done = await client.poll(path, lambda answer: answer["task"]["status"] == "TASK_STATUS_SUCCEED")
    return len(await client.ask("GET", done["images"][0]["image_url"]))


async def _scenario(client: _Client, image: bytes, model: str) -> int:
    asset = (await client.ask("POST", "/v1/assets", {"name": "a", "image": _base64(image)}))["asset"]
    body = {"image": asset["id"], "upscaleFactor": 4}
    job = (await client.ask("POST", f"/v1/generate/custom/{model}", body))["job"]["jobId"]
    done = await client.poll(f"/v1/jobs/{job}", lambda answer: answer["job"]["status"] == "success")
    result = (await client.ask("GET", f"/v1/assets/{done['job']['metadata']['assetIds'][0]}"))["asset"]
    return len(await client.ask("GET", result["url"]))


_PROVIDERS: Final[dict[str, tuple[Upscale, _Peer]]] = {
    "A1111": (_a1111, _Peer("PNG")),
    "Novita v2": (_novita_v2, _Peer("PNG", fetched=True)),
    "Novita v3": (_novita_v3, _Peer("PNG", fetched=True)),
    "Scenario": (_scenario, _Peer("PNG", fetched=True, uploaded=True)),
    "Stability": (_stability, _Peer("JPG", own_model=False)),
    "Photio": (_photio, _Peer("PNG", own_model=False)),
}


def compare(images: list[bytes], model: str, side: int) -> None:
    """Measure, print, keep.

    Args:
        images: one for each client.
        model: what upscales them, where the service can say so.
        side: of the images, in pixels.
    """
    megapixels = len(images) * (4 * side) ** 2 / 1e6
    report = Report(f"providers-{model}", "service", "its MP/s", "POST MP/s", "ratio", device=gpu_name())
    with tilewire("--models", model) as (_, port):
        for name, (upscale, peer) in _PROVIDERS.items():
            theirs, posts = asyncio.run(_measured(f"http://127.0.0.1:{port}", images, model, upscale, peer))
            ratio = median([post / own for own, post in zip(theirs, posts, strict=True)])
            report.row(name, megapixels / median(theirs), megapixels / median(posts), ratio)
    report.say(f"{len(images)} clients, {side} × {side} pixels ×4, {ROUNDS} rounds, taken in turns")
    report.keep()


async def _measured(
    url: str, images: list[bytes], model: str, upscale: Upscale, peer: _Peer
) -> tuple[list[float], list[float]]:
    """Seconds of each round: by the provider's shape, and by POST."""
    theirs: list[float] = []
    posts: list[float] = []

    async def post(client: _Client, image: bytes, model: str) -> int:
        return await _post(client, image, model, peer)

    async with httpcore.AsyncConnectionPool(max_connections=len(images)) as pool:
        clients = [_Client(pool, url) for _ in images]
        for number in range(-1, ROUNDS):
            for how, times in ((upscale, theirs), (post, posts)):
                begun = time.perf_counter()
                await asyncio.gather(
                    *(how(client, image, model) for client, image in zip(clients, images, strict=True))
                )
                if number >= 0:  # the first round warms up
                    times.append(time.perf_counter() - begun)
    return theirs, posts


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode()
