"""Noise is removed tile by tile, as if it were done at once."""

import numpy as np
import pytest
from msgspec import structs

from engines import Picture, Upscaler, find_devices
from engines import denoiser as module
from tests.onnx_models.support.ffdnet import denoised, tensors
from tests.server.support.denoiser import add_denoiser


@pytest.fixture(scope="module")
def upscaler(model_directory):
    upscaler = Upscaler(find_devices("cpu", "onnxruntime"), model_directory)
    yield upscaler
    upscaler.close()


@pytest.fixture(scope="module")
def auxiliary(tmp_path_factory):
    return add_denoiser(tmp_path_factory.mktemp("added"))


@pytest.mark.parametrize("size", [(131, 94), (64, 300), (1, 1)])
async def test_tiles_are_what_the_whole_picture_would_be(upscaler, auxiliary, size, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    picture = Picture(pixels=pixels, alpha=pixels[:, :, 0], icc_profile=b"profile")
    whole = await upscaler.auxiliaries.denoise(picture, auxiliary, 25)
    monkeypatch.setattr(module, "_TILE", 41)
    shares: list[float] = []
    started: list[bool] = []
    tiled = await upscaler.auxiliaries.denoise(
        picture, auxiliary, 25, on_start=lambda: started.append(True), on_progress=shares.append
    )
    np.testing.assert_array_equal(tiled.pixels, whole.pixels)
    expected = np.rint(255 * np.clip(denoised(tensors(), pixels, 25), 0, 1))
    assert np.abs(whole.pixels - expected).max() <= 1
    assert (whole.alpha is picture.alpha, whole.icc_profile) == (True, b"profile")
    assert (started, shares == sorted(shares), shares[-1]) == ([True], True, 1)


async def test_a_texture_is_denoised_across_the_edges_that_meet(upscaler, auxiliary):
    pixels = np.random.default_rng(3).integers(0, 256, (36, 50, 3), np.uint8)

    async def denoised_texture(pixels, seamless):
        return (
            await upscaler.auxiliaries.denoise(Picture(pixels=pixels), auxiliary, 25, seamless=seamless)
        ).pixels

    moved = np.ascontiguousarray(np.roll(pixels, (10, 14), (0, 1)))
    expected = np.roll(await denoised_texture(pixels, "both"), (10, 14), (0, 1)).astype(int)
    assert np.abs(await denoised_texture(moved, "both") - expected).max() <= 1
    assert np.abs(await denoised_texture(moved, None) - expected).max() > 1


async def test_grey_stays_grey(upscaler, auxiliary):
    grey = np.random.default_rng(2).integers(0, 256, (40, 50), np.uint8)
    found = await upscaler.auxiliaries.denoise(Picture(pixels=grey), auxiliary, 25)
    assert found.pixels.shape == grey.shape


async def test_a_network_that_changed_is_not_run(upscaler, auxiliary):
    missing = replace_file(auxiliary, "/nowhere.onnx")
    with pytest.raises(Exception, match=r"other cannot be used: .* is missing"):
        await upscaler.auxiliaries.denoise(Picture(pixels=np.zeros((4, 4, 3), np.uint8)), missing, 5)


def replace_file(auxiliary, path):
    file = structs.replace(auxiliary.file, path=path)
    return structs.replace(auxiliary, file=file, name="other")
