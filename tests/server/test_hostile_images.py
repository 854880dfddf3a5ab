"""Images made to harm, through a real server: each has one answer, soon, and the server stays as it was.

The fast set is made by code. The slow one is whatever is in the archive or folder that `--hostile-images`
names; the source distribution of Pillow holds hundreds that broke it once:

    pip download --no-deps --no-binary pillow pillow==13.0.0
    pytest -m slow -k images_that_broke_decoders --hostile-images pillow-13.0.0.tar.gz
"""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.processes import children, ended, wait_for
from tests.server.support.harness import FAST_MODEL, Peer, connected, make_image, new_uuid, upscale
from tests.server.support.hostile_images import hostile_images
from tests.server.support.process import ServerProcess, serving

AT_ONCE = 4
LONGEST = 60.0
MOST_MEMORY = 1500 * 2**20
SETTINGS = {
    "TILEWIRE_MODELS": FAST_MODEL,
    "TILEWIRE_MAX_INPUT_MEGAPIXELS": "0.1",
    "TILEWIRE_DECODE_TIMEOUT": "10",
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes from /proc")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server"), model_directory, **SETTINGS) as running:
        yield running


async def test_images_made_to_harm_each_have_one_answer(server: ServerProcess) -> None:
    await send_all(server, hostile_images())


async def test_decoders_that_are_killed_are_replaced(server: ServerProcess) -> None:
    async with connected(server, messagepack=True) as peer:
        await send(peer, "first", make_image())
        for pid in (decoders := children(server.process.pid)):
            os.kill(pid, signal.SIGSEGV)
        await asyncio.to_thread(wait_for, lambda: all(map(ended, decoders)))
        assert decoders
        assert await send(peer, "second", make_image(seed=1)) == ["uploaded", "upscaled"]


async def test_no_decoder_outlives_a_server_that_is_killed(tmp_path: Path, model_directory: Path) -> None:
    with serving(tmp_path, model_directory, **SETTINGS) as server:
        async with connected(server, messagepack=True) as peer:
            await send(peer, "first", make_image())
        decoders = children(server.process.pid)
        assert decoders
        server.process.kill()
        server.process.communicate()
    await asyncio.to_thread(wait_for, lambda: all(map(ended, decoders)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_images_that_broke_decoders_each_have_one_answer(
    server: ServerProcess, given_images: Iterator[tuple[str, bytes]]
) -> None:
    await send_all(server, given_images)


async def send_all(server: ServerProcess, images: Iterable[tuple[str, bytes]]) -> None:
    """Have all images uploaded and upscaled, a few at a time; tells how often each answer came."""
    answers: Counter[str] = Counter()
    rest = iter(list(images))  # made before, so that no connection has to wait for one

    async def some() -> None:
        async with connected(server, messagepack=True) as peer:
            for name, image in rest:
                answers.update(await send(peer, name, image))
            await peer.nothing_more()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    async with connected(server, messagepack=True) as peer:
        assert await send(peer, "harmless", make_image()) == ["uploaded", "upscaled"]
    memory = peak_memory(server.process.pid)
    assert memory < MOST_MEMORY
    assert answers["upscaled"] > 0
    print(f"{dict(answers)}; the server had at most {memory // 2**20} MiB")


async def send(peer: Peer, name: str, image: bytes) -> list[str]:
    began = time.monotonic()
    upload = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image}
    try:
        uploaded, upscaled = await peer.ask(upload, upscale(image))
    except TimeoutError as error:
        raise AssertionError(f"{name} has no answer") from error
    assert time.monotonic() - began < LONGEST, name
    return [answer(uploaded, "uploaded", name), answer(upscaled, "upscaled", name)]


def answer(item: dict[str, object], success: str, name: str) -> str:
    if "code" not in item:
        return success
    assert item["code"] != "serverError", f"{name}: {item}"
    assert "Traceback" not in str(item["message"])
    return str(item["code"])


def peak_memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(pid)
