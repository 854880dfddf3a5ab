"""A server process under thousands of spoilt frames: it answers each task once, and stays what it was.

    pytest -m slow tests/server/test_fuzz.py --seed 2 --frames 100000

Another seed makes other frames; the same seed makes the same. What fails is told with the smallest frame.
"""

import asyncio
import base64
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.report import resident_memory
from tests.server.support.attack import Attack, Wrong
from tests.server.support.harness import FAST_MODEL, connected, make_image, upscale
from tests.server.support.mutations import Batch, batches
from tests.server.support.process import ServerProcess, serving

MODELS = (FAST_MODEL, "realesrgan-x4plus")
AT_ONCE = 4
MOST_GROWTH = 150 * 2**20
UNLIMITED = {
    "TILEWIRE_REQUESTS_PER_SECOND": "1e9",
    "TILEWIRE_REQUEST_BURST": "1000000000",
    "TILEWIRE_FAILED_AUTHENTICATIONS_PER_MINUTE": "1000000000",
    "TILEWIRE_MODELS": ",".join(MODELS),
}


@pytest.fixture
def process(tmp_path: Path, model_directory: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path / "data", model_directory, **UNLIMITED) as running:
        yield running


async def works(server: ServerProcess) -> None:
    async with connected(server) as peer:
        for model in MODELS:
            (result,) = await peer.ask(upscale(base64.b64encode(make_image()).decode(), model=model))
            assert result["imageURL"], result


async def attack(server: ServerProcess, seed: int, frames: int) -> Counter[str]:
    """Send the frames; whatever one of them does, the server must not."""
    waiting = batches(seed, frames)
    attacker = Attack(server)

    failed: list[tuple[Batch, Wrong]] = []

    async def send() -> None:
        while not failed and (batch := next(waiting, None)) is not None:
            try:
                await attacker.run(batch)
            except Wrong as wrong:
                failed.append((batch, wrong))

    try:
        await asyncio.gather(*(send() for _ in range(AT_ONCE)))
        for batch, wrong in failed:  # more than one, perhaps, when the log tells of it
            culprit = await attacker.find_culprit(batch)
            pytest.fail(f"--seed {seed}: {wrong}\n{culprit}", pytrace=False)
    finally:
        await attacker.close()
    assert attacker.sent == frames
    return attacker.outcomes


async def survives(server: ServerProcess, seed: int, frames: int) -> None:
    await works(server)
    before = resident_memory(server.process.pid)
    outcomes = await attack(server, seed, frames)
    await works(server)
    after = resident_memory(server.process.pid)
    print(f"{frames} frames, seed {seed}: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")
    print(f"replies over sockets: {outcomes.most_common()}")
    assert after < before + MOST_GROWTH
    assert server.process.poll() is None


async def test_two_thousand_spoilt_frames_do_no_harm(process: ServerProcess, seed: int) -> None:
    await survives(process, seed, 2000)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
async def test_a_hundred_thousand_spoilt_frames_do_no_harm(
    process: ServerProcess, seed: int, frames: int
) -> None:
    await survives(process, seed, frames)
