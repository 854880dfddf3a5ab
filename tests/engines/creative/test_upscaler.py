"""The creative upscaler on the devices of this machine, with a tiny model whose result is known."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from engines import Diffusion, ModelError, Picture, Upscaler
from engines.devices.cpu import CpuDevice
from engines.latent.diffusion import Creative
from tests.engines.support.recording import BatchingDevice
from tests.engines.support.tiny_creative import add_tiny_creative
from tests.onnx_models.support.tiny_latent import CELL

FAST = Diffusion(steps=4, seed=7, strength=0.5, prompt="a", creative=Creative(control=0.8, kept=0.5))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return add_tiny_creative(tmp_path_factory.mktemp("creative"))


@pytest.fixture
def device():
    return BatchingDevice()


@pytest.fixture
def upscaler(device, model_directory):
    upscaler = Upscaler([device], model_directory)
    yield upscaler
    upscaler.close()


def picture(height, width, seed=0):
    random = np.random.default_rng(seed)
    blocks = random.integers(40, 200, (-(-height // CELL), -(-width // CELL), 3), np.uint8)
    return Picture(pixels=blocks.repeat(CELL, 0).repeat(CELL, 1)[:height, :width])


def upscaled(upscaler, model, source, diffusion=FAST, factor=2, **more):
    size = {"width": round(factor * source.width), "height": round(factor * source.height)}
    return asyncio.run(upscaler.upscale(source, model, diffusion=diffusion, **size, **more))


def drawn(device):
    """How often something was encoded, which is once for each window of each pass."""
    return sum(count for name, count in device.batches if name == "vae_encoder")


@pytest.mark.parametrize(
    ("factor", "refinements", "passes"), [(1, 0, 1), (1, 2, 3), (1.5, 0, 1), (2, 1, 2), (4, 0, 2), (6, 0, 3)]
)
def test_each_pass_at_most_doubles_and_refinements_come_first(
    upscaler, device, model, factor, refinements, passes
):
    source = picture(16, 16)
    wanted = replace(FAST, creative=replace(FAST.creative, refinements=refinements))
    result = upscaled(upscaler, model, source, wanted, factor)
    assert result.pixels.shape == (16 * factor, 16 * factor, 3)
    assert drawn(device) == passes


def test_strength_decays_from_pass_to_pass(upscaler, device, model):
    upscaled(upscaler, model, picture(16, 16), replace(FAST, steps=8), 4)
    unets = sum(count for name, count in device.batches if name == "unet")
    assert unets == 8 * 0.5 + 8 * 0.25


def test_a_model_enlarges_before_each_pass_or_a_filter(model, catalogue, model_directory):
    source = picture(24, 24)
    gan = catalogue.get("realesr-animevideov3")
    upscaler = Upscaler([CpuDevice(1)], model_directory)
    try:
        filtered, by_model = (
            upscaled(upscaler, model, source, FAST, enlarger=enlarger).pixels.astype(int)
            for enlarger in (None, gan)
        )
        (device,) = upscaler.activity().devices
    finally:
        upscaler.close()
    assert np.abs(filtered - by_model).max() > 8
    assert set(device.pixels) == {gan.name, model.name}


def test_a_result_does_not_depend_on_what_shares_its_runs(upscaler, device, model):
    source = picture(32, 32)

    async def together(count):
        tasks = [
            upscaler.upscale(
                source, model, diffusion=replace(FAST, seed=seed), account=str(seed), width=64, height=64
            )
            for seed in range(count)
        ]
        return [result.pixels.tobytes() for result in await asyncio.gather(*tasks)]

    alone = asyncio.run(together(1))
    device.go.clear()
    threading.Timer(0.2, device.go.set).start()
    shared = asyncio.run(together(5))
    assert shared[0] == alone[0]
    assert len(set(shared)) == 5
    assert max(count for name, count in device.batches if name == "unet") > 1


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_colours_are_kept_where_they_are_to_be(upscaler, model, method):
    source = Picture(pixels=np.full((32, 32, 3), (90, 120, 160), np.uint8))
    bright = replace(FAST, steps=100, strength=0.03, prompt="ugly " * 8, guidance=1000.0)
    free = replace(bright, creative=Creative(control=0.0, extra_noise=-1.0))
    changed, kept = (
        upscaled(upscaler, model, source, replace(free, colour_fix=fix)).pixels.mean((0, 1))
        for fix in (None, method)
    )
    assert np.abs(changed - (90, 120, 160)).min() > 20
    assert np.abs(kept - (90, 120, 160)).max() < 4


def test_alpha_grey_and_regions_are_as_of_any_upscale(upscaler, model):
    grey = Picture(pixels=picture(32, 48).pixels[:, :, 0], alpha=np.zeros((32, 48), np.uint8))
    grey.alpha[:, 24:] = 255
    regions, shares, starts = [], [], []
    result = upscaled(
        upscaler, model, grey, factor=3, on_region=regions.append, on_progress=shares.append,
        on_start=lambda: starts.append(1),
    )  # fmt: skip
    assert result.pixels.shape == result.alpha.shape == (96, 144)
    assert (result.alpha[:, :69] == 0).all()
    assert (result.alpha[:, 75:] == 255).all()
    (region,) = regions
    assert np.array_equal(region.picture().pixels, result.pixels)
    assert np.array_equal(region.picture().alpha, result.alpha)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert starts == [1]


@pytest.mark.parametrize(("seamless", "factor", "shift"), [("x", 2, 24), ("both", 1.5, 20)])
def test_seamless_results_go_on_at_their_opposite_edges(upscaler, model, seamless, factor, shift):
    """Without noise, what is drawn of a rolled texture is what is drawn of it, rolled."""
    source = picture(48, 80)
    still = replace(FAST, creative=Creative(control=1.0, extra_noise=-1.0))
    rolled = Picture(pixels=np.roll(source.pixels, shift, 1))
    first, second = (
        upscaled(upscaler, model, each, still, factor, seamless=seamless).pixels.astype(int)
        for each in (source, rolled)
    )
    assert first.shape == (48 * factor, 80 * factor, 3)
    assert np.abs(np.roll(first, round(shift * factor), 1) - second).mean() < 4


def test_a_cancelled_picture_is_drawn_no_further(upscaler, device, model):
    async def cancelled():
        begun = asyncio.Event()
        task = asyncio.create_task(
            upscaler.upscale(
                picture(32, 32), model, width=128, height=128, diffusion=replace(FAST, steps=100),
                on_progress=lambda share: begun.set() if share > 0.4 else None,
            )
        )  # fmt: skip
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancelled())
    assert not any(waiting.tiles for waiting in upscaler.activity().waiting.values())
    assert sum(name == "vae_decoder" for name, _ in device.batches) == 1


def test_windows_that_a_device_has_no_memory_for_are_made_smaller(model, model_directory):
    device = BatchingDevice(memory=20 * 20)
    upscaler = Upscaler([device], model_directory)
    wide = replace(FAST, creative=replace(FAST.creative, window=2.0))
    try:
        result = upscaled(upscaler, model, picture(120, 100), wide)
    finally:
        upscaler.close()
    assert result.pixels.shape == (240, 200, 3)


def test_a_window_may_be_larger_than_the_models_own(upscaler, device, model):
    source = picture(128, 128)
    windows = []
    for times in (0.5, 1.0, 2.0):
        device.batches.clear()
        wanted = replace(FAST, creative=replace(FAST.creative, window=times))
        upscaled(upscaler, model, source, wanted)
        windows.append(drawn(device))
    assert windows == sorted(windows, reverse=True)
    assert windows[-1] == 1


def test_a_damaged_file_is_an_error(upscaler, tmp_path):
    damaged = add_tiny_creative(tmp_path)
    unet = next(tmp_path.glob("*/unet.onnx"))
    unet.write_bytes(unet.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="damaged"):
        upscaled(upscaler, damaged, picture(32, 32))


def test_it_is_loaded_before_its_first_task(model, model_directory):
    upscaler, shares = Upscaler([CpuDevice(1)], model_directory), []
    try:
        upscaler.load(model, shares.append)
    finally:
        upscaler.close()
    assert shares == [1.0]
