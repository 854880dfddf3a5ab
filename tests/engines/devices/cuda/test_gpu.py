"""Networks on the NVIDIA GPUs of this machine. Skipped without one; with one: `pytest -m gpu`."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines import (
    DeviceOutOfMemoryError,
    Diffusion,
    ModelError,
    Picture,
    Upscaler,
    decode,
    find_devices,
)
from engines.devices.cuda import device as cuda_device
from engines.devices.cuda.device import CudaDevice
from engines.devices.parity import LEAST_DECIBELS
from engines.devices.sessions import Network, warmed_up
from onnx_models import load_catalogue
from tests.onnx_models.support.tiny_latent import CELL, add_tiny_latent

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

MODELS = load_catalogue()
NETWORKS = [(model, weights) for model in MODELS for weights in model.weights]


@pytest.fixture(scope="module")
def gpu():
    return find_devices("cuda")[0]


@pytest.fixture(scope="module")
def cpu():
    return find_devices("cpu", "onnxruntime")[0]


@pytest.fixture(scope="module")
def session(gpu, quick_network):
    return warmed_up(gpu.open(quick_network))


@pytest.fixture(scope="module")
def quick_network(small_network):
    """With tiles that are quick to warm up."""
    return replace(small_network, tile=64)


def photograph(height, width, top=40, left=100):
    pixels = decode(Path("tests/images/cat.jpg").read_bytes(), max_pixels=10**6).pixels
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def decibels(found, expected):
    error = np.square(found.astype(float) - expected).mean()
    return 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize(("model", "weights"), NETWORKS, ids=lambda value: getattr(value, "name", None))
def test_every_network_computes_in_half_precision_and_stays_near_the_cpu(
    gpu, cpu, model, weights, model_directory, caplog
):
    caplog.set_level(logging.INFO)
    network = replace(Network.build(model, weights, model_directory), tile=64)
    tiles = photograph(96, 128)[np.newaxis]
    session = warmed_up(gpu.open(network))
    assert "fp32" not in caplog.text
    assert decibels(session.run(tiles), cpu.open(network).run(tiles)) >= LEAST_DECIBELS


def test_in_single_precision_a_gpu_differs_from_the_cpu_by_one_level_at_most(gpu, cpu, quick_network):
    tiles = photograph(40, 56)[np.newaxis]
    found = replace(gpu, precision="fp32").open(quick_network).run(tiles)
    assert np.abs(found.astype(int) - cpu.open(quick_network).run(tiles)).max() <= 1


def test_every_gpu_gives_the_same(quick_network):
    tiles = photograph(40, 56)[np.newaxis]
    results = [gpu.open(quick_network).run(tiles) for gpu in find_devices("cuda")]
    assert all(np.array_equal(result, results[0]) for result in results)


def test_graphs_give_the_bytes_of_plain_runs_whatever_runs_between_them(gpu, quick_network, monkeypatch):
    with_graphs = warmed_up(gpu.open(quick_network))
    monkeypatch.setattr(cuda_device, "_GRAPHS_FROM", (99, 0))
    plain = warmed_up(gpu.open(quick_network))
    shapes = [(48, 80), (64, 64), (31, 57), (96, 96)]
    for turn in range(6):
        for height, width in shapes:
            tiles = photograph(height, width, top=turn, left=5 * turn)[np.newaxis]
            assert np.array_equal(with_graphs.run(tiles), plain.run(tiles)), (turn, height, width)
    assert all(with_graphs._plan.has((1, *shape, 3)) for shape in shapes), "graphs could not be captured"


def test_tiles_of_a_batch_come_out_as_they_do_alone(session):
    tiles = np.stack([photograph(40, 56, top=20 * number) for number in range(7)])
    together = session.run(tiles)
    for tile, result in zip(tiles, together, strict=True):
        assert np.abs(session.run(tile[np.newaxis])[0].astype(int) - result).max() <= 2


class SmallGpu(CudaDevice):
    """A GPU of which ONNX Runtime may take only a part."""

    def _options(self):
        return CudaDevice._options(self) | {"gpu_mem_limit": str(96 << 20)}


def test_what_does_not_fit_into_the_memory_is_run_in_smaller_parts(gpu, model_directory, caplog):
    """At 532 × 532 pixels two layers of this network take 72 MB, and its result as much again, and more."""
    model = MODELS.get("realesr-animevideov3")
    small, whole = [
        Upscaler([device], model_directory) for device in (SmallGpu(gpu.index, gpu.hardware, "fp16"), gpu)
    ]
    picture = Picture(pixels=np.tile(photograph(200, 200), (3, 3, 1)))
    try:
        results = [
            asyncio.run(upscaler.upscale(picture, model, width=2400, height=2400)).pixels
            for upscaler in (small, whole)
        ]
    finally:
        small.close()
        whole.close()
    assert "not enough memory" in caplog.text
    assert decibels(*results) >= LEAST_DECIBELS


def test_a_run_beyond_the_memory_is_known_as_such_and_the_next_one_succeeds(gpu, quick_network):
    session = SmallGpu(gpu.index, gpu.hardware, "fp16").open(quick_network)
    with pytest.raises(DeviceOutOfMemoryError):
        session.run(np.zeros((1, 2048, 2048, 3), np.uint8))
    assert session.run(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_stays_near_the_cpu(runtime, cpu, quick_network):
    try:
        (device, *_) = find_devices("cuda", runtime)
    except ModelError as error:
        pytest.skip(str(error))
    session = device.open(quick_network)
    kept = quick_network.path.parent / device.product.lower().replace(" ", "-")
    assert any(file.is_file() for file in kept.rglob("*"))
    for tiles in (photograph(40, 56)[np.newaxis], photograph(20, 200)[np.newaxis]):
        assert decibels(session.run(tiles), cpu.open(quick_network).run(tiles)) >= LEAST_DECIBELS


def test_a_gpu_that_has_a_network_loaded_tells_its_memory(gpu, session):
    memory = gpu.memory_use()
    assert 0 < memory.used < memory.size


def test_a_latent_upscaler_gives_on_a_gpu_what_it_gives_on_the_cpu(gpu, cpu, tmp_path):
    model = add_tiny_latent(tmp_path / "models", liveliness=0.05)
    blocks = np.random.default_rng(0).integers(40, 200, (8, 8, 3), np.uint8)
    picture = Picture(pixels=blocks.repeat(CELL, 0).repeat(CELL, 1))
    results = []
    for device in (gpu, cpu):
        upscaler = Upscaler([device], tmp_path)
        wanted = {"width": 2 * picture.width, "height": 2 * picture.height}
        try:
            work = upscaler.upscale(picture, model, diffusion=Diffusion(steps=3, seed=7), **wanted)
            results.append(asyncio.run(work).pixels.astype(int))
        finally:
            upscaler.close()
    assert np.abs(results[0] - results[1]).max() <= 2
