"""Tiles make up the picture that the network gives of the whole image, at a small cost.

The tiles are smaller than the catalogue's, to be quick; its overlap is what keeps seams from showing.
"""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from engines import Picture, Upscaler, decode, find_devices
from engines.latent.windows import Windows
from engines.tiling.menu import sides_for
from engines.tiling.tiles import plan_tiles
from onnx_models import load_catalogue

PHOTOGRAPHS = Path("tests/images")
MODELS = load_catalogue()
SEE_FURTHER = [pytest.param("realesrgan-x4plus", marks=pytest.mark.slow), "realesrgan-x4plus-anime"]


@pytest.fixture(scope="module")
def upscaler(model_directory):
    upscaler = Upscaler(find_devices("cpu", "onnxruntime"), model_directory)  # bf16 rounds more
    yield upscaler
    upscaler.close()


def photograph(name, height, width):
    pixels = decode((PHOTOGRAPHS / f"{name}.jpg").read_bytes(), max_pixels=10**6).pixels
    return Picture(pixels=np.ascontiguousarray(pixels[1 : 1 + height, 51 : 51 + width]))


async def whole_and_in_tiles(upscaler, picture, model, core, factor=4):
    """What the model gives at once, and with tiles of `core` pixels beside their overlaps."""
    width, height = picture.width * factor, picture.height * factor
    tile = 2 * model.overlap + core + model.border
    plan = plan_tiles(picture.height, picture.width, tile=tile, overlap=model.overlap, border=model.border)
    assert len(plan) > 1
    for each in (msgspec.structs.replace(model, tile=2000), msgspec.structs.replace(model, tile=tile)):
        yield (await upscaler.upscale(picture, each, width=width, height=height)).pixels.astype(int)


def psnr(difference):
    return 10 * np.log10(255**2 / max(np.square(difference).mean(), 1e-9))


@pytest.mark.parametrize("name", SEE_FURTHER)
@pytest.mark.parametrize(
    ("photo", "height", "width", "core"),
    [
        ("cat", 99, 141, 24),
        pytest.param("cat", 199, 231, 48, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
        pytest.param("coffee", 199, 231, 48, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
async def test_tiles_of_photographs_are_within_60_db_and_4_levels(upscaler, name, photo, height, width, core):
    whole, tiled = [
        pixels
        async for pixels in whole_and_in_tiles(
            upscaler, photograph(photo, height, width), MODELS.get(name), core
        )
    ]
    assert np.abs(tiled - whole).max() <= 4
    assert psnr(tiled - whole) >= 60


@pytest.mark.parametrize("photo", ["cat", "coffee"])
@pytest.mark.parametrize("factor", [2, 4])
async def test_tiles_of_the_fast_network_equal_the_whole_image(upscaler, photo, factor):
    model, picture = MODELS.get("realesr-animevideov3"), photograph(photo, 123, 171)
    whole, tiled = [pixels async for pixels in whole_and_in_tiles(upscaler, picture, model, 24, factor)]
    assert np.array_equal(tiled, whole)


async def test_where_rounding_depends_on_the_place_a_few_numbers_differ_by_one_level(upscaler):
    """At scale 3 the fast network ends in a bicubic reduction, whose weights are rounded for each place."""
    model, picture = MODELS.get("realesr-animevideov3"), photograph("cat", 123, 171)
    whole, tiled = [pixels async for pixels in whole_and_in_tiles(upscaler, picture, model, 24, 3)]
    assert np.abs(tiled - whole).max() <= 1
    assert np.mean(tiled != whole) < 1e-4


@pytest.mark.parametrize(
    ("height", "width"), [(1, 4500), (2, 2301), (7, 901), (31, 301), (301, 31), (901, 7), (4500, 1)]
)
async def test_long_thin_images_in_tiles_equal_the_whole(upscaler, height, width):
    model, pixels = MODELS.get("realesr-animevideov3"), photograph("cat", 200, 300).pixels
    picture = Picture(pixels=np.resize(pixels, (height, width, 3)))
    whole, tiled = [pixels async for pixels in whole_and_in_tiles(upscaler, picture, model, 24, 2)]
    assert whole.shape == (2 * height, 2 * width, 3)
    assert np.array_equal(tiled, whole)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("side", [1000, 1024])
@pytest.mark.parametrize("model", list(MODELS), ids=lambda model: model.name)
def test_overlaps_are_less_than_a_quarter_more_work_at_a_megapixel(model, side, gpu):
    if model.family == "latent":
        windows = list(Windows(side, side, side=model.tile, overlap=model.overlap, step=32 if gpu else 1))
        work = sum(window.height * window.width for window in windows)
    else:
        sides = sides_for(model.tile, model.overlap) if gpu else ()
        plan = plan_tiles(
            side, side, tile=model.tile, overlap=model.overlap, border=model.border, sides=sides
        )
        work = len(plan) * plan.height * plan.width
    assert work < 1.25 * (side + 2 * model.border) ** 2
