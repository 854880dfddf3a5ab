"""Without seams, by the mean of flips and turns, and by two models at once; through real networks."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engines import TURNS, Blend, ModelError, Picture, Upscaler, decode, find_devices
from engines.ensemble import Mean, blended

# Its results do not depend on where in a tile a pixel is, as those of Winograd convolutions do.
CPU = find_devices("cpu", "onnxruntime")
PHOTOGRAPH = Path(__file__).parent.parent / "images" / "cat.jpg"


@pytest.fixture(scope="module")
def upscaler(model_directory):
    upscaler = Upscaler(CPU, model_directory)
    yield upscaler
    upscaler.close()


@pytest.fixture(scope="module")
def fast(catalogue):
    return catalogue.get("realesr-animevideov3")


@pytest.fixture(scope="module")
def texture():
    """A part of a photograph, whose opposite edges have nothing in common; its alpha is another part."""
    pixels = decode(PHOTOGRAPH.read_bytes(), max_pixels=10**6).pixels
    part = np.ascontiguousarray(pixels[60:100, 120:180])
    return Picture(pixels=part, alpha=np.ascontiguousarray(pixels[0:40, 0:60, 1]))


def moved(picture, down, across):
    pixels, alpha = (
        np.ascontiguousarray(np.roll(plane, (down, across), (0, 1)))
        for plane in (picture.pixels, picture.alpha)
    )
    return replace(picture, pixels=pixels, alpha=alpha)


def difference(one, other):
    return max(
        int(np.abs(first.astype(int) - second).max())
        for first, second in ((one.pixels, other.pixels), (one.alpha, other.alpha))
    )


@pytest.mark.parametrize(("factor", "tile"), [(2, 64), (2.5, 542), (4, 64), (5, 542)])
async def test_a_texture_that_is_moved_across_its_edges_becomes_the_same_texture_moved(
    upscaler, fast, texture, factor, tile
):
    model = msgspec.structs.replace(fast, tile=tile)
    size = {"width": int(60 * factor), "height": int(40 * factor)}
    wanted = {**size, "seamless": "both", "keep_hidden": True}
    as_it_is = await upscaler.upscale(texture, model, **wanted)
    once_moved = await upscaler.upscale(moved(texture, 16, -20), model, **wanted)
    expected = moved(as_it_is, int(16 * factor), int(-20 * factor))
    assert difference(once_moved, expected) <= 1
    plain = await upscaler.upscale(moved(texture, 16, -20), model, **size, keep_hidden=True)
    assert difference(plain, expected) > 20


@pytest.mark.parametrize(("axis", "own", "other"), [("x", (0, 1), (1, 0)), ("y", (1, 0), (0, 1))])
async def test_only_the_axis_that_is_asked_for_wraps(upscaler, fast, texture, axis, own, other):
    wanted = {"width": 120, "height": 80, "seamless": axis, "keep_hidden": True}
    as_it_is = await upscaler.upscale(texture, fast, **wanted)
    for (down, across), wraps in ((own, True), (other, False)):
        once_moved = await upscaler.upscale(moved(texture, 14 * down, 22 * across), fast, **wanted)
        expected = moved(as_it_is, 28 * down, 44 * across)
        assert (difference(once_moved, expected) <= 1) == wraps


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (5, 40)])
async def test_textures_smaller_than_the_overlap_wrap_several_times(upscaler, fast, height, width):
    pixels = np.random.default_rng(5).integers(0, 255, (height, width, 3), np.uint8)
    result = await upscaler.upscale(
        Picture(pixels=pixels), fast, width=3 * width, height=3 * height, seamless="both"
    )
    repeated = Picture(pixels=np.tile(pixels, (5, 5, 1)))
    expected = await upscaler.upscale(repeated, fast, width=15 * width, height=15 * height, seamless="both")
    rows, columns = slice(6 * height, 9 * height), slice(6 * width, 9 * width)
    assert np.abs(result.pixels.astype(int) - expected.pixels[rows, columns]).max() <= 1


async def test_a_seamless_result_is_reported_in_parts_that_make_it_up(upscaler, fast, texture):
    regions = []
    model = msgspec.structs.replace(fast, tile=64)
    result = await upscaler.upscale(
        texture, model, width=150, height=100, seamless="both", on_region=regions.append
    )
    made = np.zeros_like(result.pixels)
    for region in regions:
        part = region.picture()
        made[region.area.top : region.area.bottom, region.area.left : region.area.right] = part.pixels
    assert np.array_equal(made, result.pixels)
    assert sum(region.area.width * region.area.height for region in regions) == 150 * 100


async def test_latent_upscalers_do_not_pretend_to_avoid_seams(upscaler, catalogue, texture):
    model = catalogue.get("tilewire-latent-x2")
    with pytest.raises(ModelError, match="cannot avoid seams"):
        await upscaler.upscale(texture, model, width=120, height=80, seamless="x")


@pytest.mark.parametrize("turn", TURNS)
def test_what_is_laid_another_way_can_be_laid_back(texture, turn):
    laid = turn.of(texture)
    assert (laid.width, laid.height) == turn.size(60, 40)
    back = turn.back(laid)
    assert np.array_equal(back.pixels, texture.pixels)
    assert np.array_equal(back.alpha, texture.alpha)


def test_the_eight_ways_to_lay_a_picture_are_different(texture):
    assert len({turn.of(texture).pixels.tobytes() for turn in TURNS}) == 8


async def test_the_mean_over_all_flips_and_turns_is_the_same_whichever_way_the_picture_lies(
    upscaler, fast, texture
):
    shares, regions = [], []
    upright = await upscaler.upscale(
        texture, fast, width=120, height=80, tta=True, on_progress=shares.append, on_region=regions.append
    )
    assert shares == sorted(shares)
    assert len(shares) >= 8
    assert shares[-1] == 1
    (whole,) = regions
    assert np.array_equal(whole.picture().pixels, upright.pixels)
    single = await upscaler.upscale(texture, fast, width=120, height=80)
    for turn in (TURNS[3], TURNS[6]):
        width, height = turn.size(120, 80)
        laid = await upscaler.upscale(turn.of(texture), fast, width=width, height=height, tta=True)
        assert difference(turn.back(laid), upright) == 0
        alone = await upscaler.upscale(turn.of(texture), fast, width=width, height=height)
        assert difference(turn.back(alone), single) > 0


async def test_the_mean_of_a_texture_wraps_along_the_same_axis(upscaler, fast, texture):
    wanted = {"width": 120, "height": 80, "seamless": "x", "tta": True, "keep_hidden": True}
    as_it_is = await upscaler.upscale(texture, fast, **wanted)
    once_moved = await upscaler.upscale(moved(texture, 0, 22), fast, **wanted)
    assert difference(once_moved, moved(as_it_is, 0, 44)) <= 1


def test_a_mean_is_rounded():
    mean = Mean()
    for level in (1, 2, 2, 2, 2, 2, 2, 255):
        mean.add(Picture(pixels=np.full((2, 2, 3), level, np.uint8)))
    assert (mean.picture().pixels == round(268 / 8)).all()


@pytest.mark.parametrize(("visibility", "level"), [(0.25, 75), (0.5, 100), (1, 150)])
def test_a_blend_is_as_much_of_the_second_as_is_visible(visibility, level):
    below, above = (
        Picture(pixels=np.full((300, 2, 3), each, np.uint8), alpha=np.full((300, 2), each, np.uint8))
        for each in (50, 150)
    )
    result = blended(below, above, visibility)
    assert (result.pixels == level).all()
    assert (result.alpha == level).all()


async def test_two_models_are_blended_at_the_size_of_the_result(upscaler, catalogue, fast, texture):
    second = catalogue.get("tilewire-latent-x2")
    size = {"width": 90, "height": 60}
    shares, regions = [], []
    result = await upscaler.upscale(
        texture,
        fast,
        **size,
        blend=Blend(model=second, visibility=0.25),
        on_progress=shares.append,
        on_region=regions.append,
    )
    below, above = [await upscaler.upscale(texture, model, **size) for model in (fast, second)]
    assert difference(result, blended(below, above, 0.25)) == 0
    assert difference(result, below) > 0
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(regions) == 1


async def test_a_blend_in_which_one_model_fails_fails_with_its_error(upscaler, catalogue, fast, texture):
    with pytest.raises(ModelError, match="cannot avoid seams"):
        await upscaler.upscale(
            texture,
            fast,
            width=120,
            height=80,
            seamless="x",
            blend=Blend(model=catalogue.get("tilewire-latent-x2"), visibility=0.5),
        )
