"""Grey, flat, transparent and bordered pictures come out of every network as they should."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from engines import Picture, Upscaler, find_devices
from engines.codecs.picture import as_grey, as_rgb
from engines.scheduling.calibration import Calibration
from tests.engines.support.fake_device import FakeDevice
from tests.engines.test_upscaler import enlarged, photograph, with_tile


@pytest.fixture(scope="module")
def upscaler(model_directory):
    upscaler = Upscaler(find_devices("cpu", "onnxruntime"), model_directory)
    yield upscaler
    upscaler.close()


@pytest.fixture(scope="module")
def fast(catalogue):
    return catalogue.get("realesr-animevideov3")


NETWORKS = ["realesr-animevideov3", "realesrgan-x4plus-anime"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("factor", [2, 2.5, 4])
async def test_grey_stays_grey(upscaler, catalogue, name, factor):
    model = catalogue.get(name)
    colours = photograph(40, 50).pixels
    grey = as_grey(colours)
    alpha = np.clip(np.mgrid[:40, :50][1] * 9, 0, 255).astype(np.uint8)
    for plane in (None, alpha):
        result = await enlarged(upscaler, Picture(grey, plane), model, factor)
        assert result.pixels.shape == (40 * factor, 50 * factor)
        assert (result.alpha is None) == (plane is None)
    # It is what the network makes of three equal channels, but for their differences.
    of_three = await enlarged(upscaler, Picture(np.ascontiguousarray(as_rgb(grey))), model, factor)
    plain = await enlarged(upscaler, Picture(grey), model, factor)
    assert np.abs(as_grey(of_three.pixels).astype(int) - plain.pixels).max() <= (1 if factor != 2.5 else 2)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(24, 30), (1, 1), (1, 37), (37, 1), (2, 3)])
async def test_a_flat_picture_stays_flat_to_its_corners(upscaler, catalogue, name, size):
    for colour in ([255, 0, 0], [0, 0, 255], [20, 200, 90]):
        pixels = np.broadcast_to(np.uint8(colour), (*size, 3))
        for alpha in (None, np.full(size, 90, np.uint8)):
            result = await enlarged(
                upscaler, Picture(np.ascontiguousarray(pixels), alpha), catalogue.get(name), 2
            )
            assert (result.pixels == colour).all()
            assert alpha is None or (result.alpha == 90).all()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(40, 40), (1, 40), (40, 1)])
async def test_borders_are_no_darker_than_the_same_colour_elsewhere(upscaler, catalogue, name, size):
    """A red picture with something else in its middle, so that the network has to see it."""
    pixels = np.full((*size, 3), [255, 0, 0], np.uint8)
    pixels[size[0] // 2, size[1] // 2] = 0, 99, 200
    result = (await enlarged(upscaler, Picture(pixels), catalogue.get(name), 2)).pixels.astype(int)
    corners = result[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.abs(corners - [255, 0, 0]).max() <= 5


async def test_what_is_flat_needs_no_device(model_directory, catalogue, monkeypatch):
    monkeypatch.setattr(Calibration, "batch", lambda *_: 1)
    device, fast = FakeDevice(scale=2), catalogue.get("realesr-animevideov3")
    upscaler = Upscaler([device], model_directory)
    blank = Picture(np.full((64, 64, 3), 9, np.uint8), np.zeros((64, 64), np.uint8))
    regions, progress = [], []
    result = await enlarged(
        upscaler, blank, with_tile(fast, 48), 2, on_region=regions.append, on_progress=progress.append
    )
    assert not result.alpha.any()
    assert (result.pixels == 9).all()
    assert sum(region.area.width * region.area.height for region in regions) == 128 * 128
    assert progress[-1] == 1
    assert device.batches == []
    await asyncio.to_thread(upscaler.close)


async def test_hidden_colours_are_kept_where_that_is_asked_for(upscaler, fast):
    """A texture whose alpha is a mask of something else."""
    picture = replace(photograph(40, 50), alpha=np.tile(np.uint8([0, 255]).repeat(25), (40, 1)))
    kept = await enlarged(upscaler, picture, fast, 2, keep_hidden=True)
    plain = await enlarged(upscaler, Picture(picture.pixels), fast, 2)
    assert np.array_equal(kept.pixels, plain.pixels)
    default = await enlarged(upscaler, picture, fast, 2)
    assert np.abs(default.pixels[:, :40].astype(int) - plain.pixels[:, :40]).mean() > 10
