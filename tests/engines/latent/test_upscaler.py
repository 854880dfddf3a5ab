"""The latent upscaler on the devices of this machine, with a tiny model whose result is known."""

import asyncio
import sys
import threading
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from engines import DeviceOutOfMemoryError, Diffusion, ModelError, Picture, SpoiltResultError, Upscaler
from engines.devices.cpu import CpuDevice
from engines.latent.denoising import upscale_latent
from tests.engines.support.recording import BatchingDevice
from tests.onnx_models.support.tiny_latent import CELL, PER_TOKEN, add_promptless, add_tiny_latent

FAST = Diffusion(steps=3, seed=7)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return add_tiny_latent(tmp_path_factory.mktemp("models"), liveliness=0.05)


@pytest.fixture(scope="module")
def promptless(tmp_path_factory):
    return add_promptless(tmp_path_factory.mktemp("promptless"))


@pytest.fixture
def upscaler(tmp_path):
    upscaler = Upscaler([CpuDevice(1)], tmp_path)
    yield upscaler
    upscaler.close()


def picture(height, width, seed=0):
    """Blocks of one colour, as large as a latent, so that nothing is lost in it."""
    random = np.random.default_rng(seed)
    blocks = random.integers(40, 200, (-(-height // CELL), -(-width // CELL), 3), np.uint8)
    return Picture(pixels=blocks.repeat(CELL, 0).repeat(CELL, 1)[:height, :width])


def upscaled(upscaler, model, source, diffusion=FAST, **more):
    wanted = {"width": 2 * source.width, "height": 2 * source.height} | more
    return asyncio.run(upscaler.upscale(source, model, diffusion=diffusion, **wanted))


def doubled(source):
    return source.pixels.repeat(2, 0).repeat(2, 1)


@pytest.mark.parametrize("size", [(1, 1), (16, 40), (96, 61), (128, 128), (300, 200)])
def test_a_picture_of_any_size_comes_out_twice_as_large(upscaler, tmp_path, size):
    faithful = add_tiny_latent(tmp_path / "faithful")
    source = picture(*size)
    result = upscaled(upscaler, faithful, source, replace(FAST, prompt=""))
    brighter = 255 / 2 * PER_TOKEN  # of the tokens that fill up the prompt
    assert result.pixels.shape == (2 * size[0], 2 * size[1], 3)
    assert np.abs(result.pixels - doubled(source) - brighter).max() <= 1


def test_windows_leave_no_seams(tmp_path, model):
    """A model that keeps some noise would show where one window ends and another begins."""
    device = BatchingDevice()
    upscaler = Upscaler([device], tmp_path)
    grey = Picture(pixels=np.full((320, 320, 3), 128, np.uint8))
    results, windows = [], []
    try:
        for tile, overlap in ((320, 80), (128, 32)):
            device.batches.clear()
            each = msgspec.structs.replace(model, tile=tile, overlap=overlap)
            results.append(upscaled(upscaler, each, grey, replace(FAST, steps=8)).pixels.astype(int))
            windows.append(sum(count for name, count in device.batches if name == "vae_decoder"))
    finally:
        upscaler.close()
    assert windows == [1, 9]
    assert np.abs(results[1] - results[0]).max() <= 1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(upscaler, model):
    source = picture(64, 64)
    first, again, other = (upscaled(upscaler, model, source, replace(FAST, seed=seed)) for seed in (1, 1, 2))
    assert first.pixels.tobytes() == again.pixels.tobytes()
    assert first.pixels.tobytes() != other.pixels.tobytes()


def test_a_result_does_not_depend_on_what_shares_its_runs(tmp_path, model):
    device = BatchingDevice()
    upscaler = Upscaler([device], tmp_path)
    source = picture(64, 64)

    async def together(count):
        wanted = {"width": 128, "height": 128}
        tasks = [
            asyncio.create_task(
                upscaler.upscale(
                    source, model, diffusion=replace(FAST, seed=seed), account=str(seed), **wanted
                )
            )
            for seed in range(count)
        ]
        return [result.pixels.tobytes() for result in await asyncio.gather(*tasks)]

    try:
        alone = asyncio.run(together(1))
        device.go.clear()
        threading.Timer(0.2, device.go.set).start()
        shared = asyncio.run(together(5))
    finally:
        upscaler.close()
    assert shared[0] == alone[0]
    assert len(set(shared)) == 5
    assert max(size for name, size in device.batches if name == "unet") > 1


def test_guidance_goes_beyond_the_prompt_and_away_from_the_negative_one(upscaler, model):
    source = picture(32, 32)

    def mean(**wanted):
        return upscaled(upscaler, model, source, replace(FAST, **wanted)).pixels.mean()

    plain, prompted = mean(), mean(prompt="ugly " * 8)
    guided = mean(prompt="ugly " * 8, guidance=8.0)
    against = mean(negative_prompt="ugly " * 8, guidance=8.0)
    assert plain < prompted < guided
    assert against < plain


def test_only_prompts_that_are_too_long_are_cut(upscaler, model):
    long = "cat " * 9
    assert upscaler.cuts(model, Diffusion(prompt="cat " * 8)) == []
    assert upscaler.cuts(model, Diffusion(prompt=long, negative_prompt=long)) == ["prompt", "negative_prompt"]


def test_less_strength_does_less_of_the_work(model_directory, model):
    device = BatchingDevice()
    upscaler = Upscaler([device], model_directory)
    try:
        result = upscaled(upscaler, model, picture(32, 32), replace(FAST, steps=10, strength=0.3))
    finally:
        upscaler.close()
    assert [name for name, _ in device.batches].count("unet") == 3
    assert np.abs(result.pixels.astype(int) - doubled(picture(32, 32))).mean() < 20


def test_other_sizes_are_reduced_and_alpha_is_kept(upscaler, model):
    source = picture(64, 64)
    alpha = np.zeros((64, 64), np.uint8)
    alpha[:, 32:] = 255
    regions = []
    result = upscaled(
        upscaler, model, replace(source, alpha=alpha), width=96, height=96, on_region=regions.append
    )
    assert result.pixels.shape == (96, 96, 3)
    assert (result.alpha[:, :44] == 0).all()
    assert (result.alpha[:, 52:] == 255).all()
    (region,) = regions
    assert np.array_equal(region.picture().pixels, result.pixels)


@pytest.mark.parametrize("factor", [1.5, 2, 3, 4])
def test_without_a_text_encoder_any_factor_up_to_four_is_made(upscaler, promptless, factor):
    source = Picture(pixels=np.full((48, 64, 3), (40, 90, 160), np.uint8))
    size = {"width": round(64 * factor), "height": round(48 * factor)}
    shares, starts = [], []
    result = upscaled(
        upscaler, promptless, source, **size, on_progress=shares.append, on_start=lambda: starts.append(1)
    )
    assert result.pixels.shape == (size["height"], size["width"], 3)
    assert np.abs(result.pixels - np.array((40, 90, 160))).max() <= 2
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert starts == [1]


def test_the_second_pass_of_four_times_can_be_cancelled(tmp_path, promptless):
    device = BatchingDevice()
    upscaler = Upscaler([device], tmp_path)

    async def cancelled():
        begun = asyncio.Event()
        task = asyncio.create_task(
            upscaler.upscale(
                picture(32, 32), promptless, width=128, height=128, diffusion=replace(FAST, steps=100),
                on_progress=lambda share: begun.set() if share > 0.3 else None,
            )
        )  # fmt: skip
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    try:
        assert asyncio.run(cancelled())
        assert not any(waiting.tiles for waiting in upscaler.activity().waiting.values())
    finally:
        upscaler.close()
    names = [name for name, _ in device.batches]
    assert (names.count("vae_encoder"), names.count("vae_decoder")) == (2, 1)


def test_a_model_without_a_text_encoder_takes_no_prompts(upscaler, promptless):
    with pytest.raises(ModelError, match="takes no prompts"):
        upscaler.cuts(promptless, Diffusion(prompt="a cat"))


def test_windows_that_a_device_has_no_memory_for_are_made_smaller(tmp_path, model):
    wide = msgspec.structs.replace(model, tile=512, overlap=128)
    source = picture(400, 300)
    results, batches = [], []
    for memory in (None, 60 * 60):  # a window's latents are a quarter as wide and high as its pixels
        device = BatchingDevice(memory)
        upscaler = Upscaler([device], tmp_path)
        try:
            results += [upscaled(upscaler, wide, source, on_progress=lambda _: None) for _ in range(2)]
        finally:
            upscaler.close()
        batches.append([name for name, _ in device.batches].count("unet"))
    assert np.abs(results[2].pixels.astype(int) - results[0].pixels).mean() < 2
    assert results[3].pixels.tobytes() == results[2].pixels.tobytes()
    assert batches[0] < batches[1]


def test_a_window_that_cannot_be_made_smaller_is_an_error(tmp_path, model):
    upscaler = Upscaler([BatchingDevice(memory=1)], tmp_path)
    try:
        with pytest.raises(DeviceOutOfMemoryError):
            upscaled(upscaler, model, picture(64, 64))
    finally:
        upscaler.close()


def test_prompts_without_their_package_name_what_to_install(upscaler, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    elsewhere = add_tiny_latent(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"pip install 'tilewire\[latent\]'"):
        upscaled(upscaler, elsewhere, picture(32, 32))


@pytest.mark.parametrize(
    ("wanted", "evaluations"),
    [
        ({}, 20),
        ({"steps": 7}, 7),
        ({"strength": 0.5}, 10),
        ({"scheduler": "Heun"}, 39),
        ({"guidance": 7.5}, 20),
        ({"guidance": 7.5, "prompt": "a cat"}, 40),
        ({"guidance": 1.0, "prompt": "a cat"}, 20),
    ],
)
def test_what_is_wanted_tells_how_often_the_model_looks(wanted, evaluations):
    assert Diffusion(**wanted).evaluations == evaluations


def test_progress_rises_with_every_step(upscaler, model):
    shares, starts = [], []
    upscaled(
        upscaler, model, picture(32, 32), replace(FAST, steps=5),
        on_progress=shares.append, on_start=lambda: starts.append(1),
    )  # fmt: skip
    assert shares == sorted(shares)
    assert len(shares) >= 5 + 3
    assert shares[-1] == pytest.approx(1)
    assert starts == [1]


def test_a_cancelled_picture_is_computed_no_further(tmp_path, model):
    device = BatchingDevice()
    upscaler = Upscaler([device], tmp_path)

    async def cancelled():
        seen = asyncio.Event()
        task = asyncio.create_task(
            upscaler.upscale(
                picture(32, 32), model, width=64, height=64, diffusion=replace(FAST, steps=100),
                on_progress=lambda _: seen.set(),
            )
        )  # fmt: skip
        await seen.wait()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    try:
        assert asyncio.run(cancelled())
        assert not any(waiting.tiles for waiting in upscaler.activity().waiting.values())
    finally:
        upscaler.close()
    assert len(device.batches) < 50


@pytest.mark.parametrize(("spoilt", "told"), [("nan", "not numbers"), ("black", "black picture")])
def test_what_is_no_picture_is_an_error(upscaler, tmp_path, spoilt, told):
    broken = add_tiny_latent(tmp_path / "broken", spoilt=spoilt)
    with pytest.raises(SpoiltResultError, match=told):
        upscaled(upscaler, broken, picture(32, 32))


def test_a_black_picture_may_stay_black(upscaler, tmp_path):
    broken = add_tiny_latent(tmp_path / "broken", spoilt="black")
    black = Picture(pixels=np.zeros((32, 32, 3), np.uint8))
    assert not upscaled(upscaler, broken, black).pixels.any()


def test_a_damaged_file_is_an_error(upscaler, tmp_path):
    damaged = add_tiny_latent(tmp_path / "damaged")
    unet = next((tmp_path / "damaged").glob("*/unet.onnx"))
    unet.write_bytes(unet.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="damaged"):
        upscaled(upscaler, damaged, picture(32, 32))


def test_the_activity_tells_pixels_of_the_picture_once(upscaler, model):
    upscaled(upscaler, model, picture(64, 64))
    (device,) = upscaler.activity().devices
    assert device.pixels == {model.name: 128 * 128}


def test_without_windows_nothing_is_blended(model):
    """One window is the whole: its result is used as it is, to the bit."""
    runs = upscale_latent(
        picture(64, 64).pixels, (np.arange(8), np.arange(8)), FAST, model.weights[0], side=128, overlap=32
    )
    next(runs)
    encoding = runs.send([(np.zeros((8, 1), np.float32), np.zeros(1, np.float32))])
    assert encoding.part == "vae_encoder"
    assert np.array_equal(encoding.inputs[0][0], picture(64, 64).pixels)
