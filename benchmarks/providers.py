"""Upscales by each provider's shape beside `POST /v1`: output megapixels per second, and their ratio.

    python -m benchmarks.end_to_end providers [MODEL [SIDE]]

Eight clients each send two photographs of SIDE × SIDE pixels (default 256), one when the result of the one
before is there, as clients of that service do: with their way to give the image, to wait for the result and
to get it. The peer does the same by `POST /v1`: the same model, size and format, the image inline, and the
result in the answer, or fetched where the provider's client fetches it.

Clients that poll do so every half second: so does novita-client 0.7, and no published client was found that
does so more often (Novita's for JavaScript takes 1 s, Scenario's documentation 2 to 3 s). While a client
waits to ask again, the server works for the others; at the end of a round, when there are none, that counts
against the provider.

Services that name no model get the server's default one, as their peer does. It takes some thirty times as
long, so their photographs have an eighth of SIDE.
"""

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import httpcore

from benchmarks.photos import jpeg, photograph
from benchmarks.report import KEY, Report, gpu_name, median, tilewire

__all__ = ["compare"]

CLIENTS: Final = 8
ROUNDS: Final = 3
EACH: Final = 2
"""Photographs that a client sends in a round."""
POLL_EVERY: Final = 0.5
"""Seconds between two polls."""
_BOUNDARY: Final = "----tilewire"

Upscale = Callable[["_Client", bytes, str], Awaitable[int]]
"""Upscales an image by a model; returns the bytes of the result."""


class _Client:
    """Asks the server, over a connection for each client."""

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
            await asyncio.sleep(POLL_EVERY)


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


def compare(model: str, side: int) -> None:
    """Measure, print, keep.

    Args:
        model: what upscales, where the service can say so.
        side: of the images, in pixels.
    """
    columns = "service", "side", "its MP/s", "POST MP/s", "ratio"
    report = Report(f"providers-{model}", *columns, device=gpu_name())
    with tilewire("--models", model) as (_, port):
        for name, (upscale, peer) in _PROVIDERS.items():
            own_side = side if peer.own_model else side // 8
            images = [jpeg(photograph(own_side, index)) for index in range(CLIENTS)]
            theirs, posts = asyncio.run(_measured(f"http://127.0.0.1:{port}", images, model, upscale, peer))
            ratio = median([post / own for own, post in zip(theirs, posts, strict=True)])
            megapixels = CLIENTS * EACH * (4 * own_side) ** 2 / 1e6
            report.row(name, own_side, megapixels / median(theirs), megapixels / median(posts), ratio)
    report.say(
        f"{CLIENTS} clients, {EACH} photographs each ×4, a poll every {POLL_EVERY} s, "
        f"{ROUNDS} rounds, taken in turns"
    )
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
        client = _Client(pool, url)

        async def send(how: Upscale, image: bytes, count: int) -> None:
            for _ in range(count):
                await how(client, image, model)

        for number in range(-1, ROUNDS):
            for how, times in ((upscale, theirs), (post, posts)):
                begun = time.perf_counter()
                count = EACH if number >= 0 else 1
                await asyncio.gather(*(send(how, image, count) for image in images))
                if number >= 0:  # the first round warms up
                    times.append(time.perf_counter() - begun)
    return theirs, posts


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode()
