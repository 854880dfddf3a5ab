"""Tiles become the output, by bands where it is not of a native size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from engines.codecs.picture import resize
from engines.tiling.canvas import Canvas
from engines.tiling.tiles import plan_tiles

sides = st.integers(1, 120)


def reduced(native, scale, width, height, plan, order=None):
    """What a canvas makes of the tiles of a native image."""
    canvas = Canvas(plan, scale, width, height)
    for one in order or plan:
        window = native[
            one.rows.start * scale : one.rows.stop * scale,
            one.columns.start * scale : one.columns.stop * scale,
        ]
        if canvas.paste(one, window):
            canvas.reduce()
    assert canvas.is_complete
    return canvas.pixels


@settings(deadline=None)
@given(height=sides, width=sides, tile=st.integers(9, 60), scale=st.sampled_from([2, 4]), data=st.data())
def test_the_output_is_the_whole_native_image_reduced(
    height: int, width: int, tile: int, scale: int, data: st.DataObject
) -> None:
    factor = data.draw(st.floats(1, scale))
    out_height, out_width = max(1, round(height * factor)), max(1, round(width * factor))
    rng = np.random.default_rng(height * 1000 + width)
    native = rng.integers(0, 256, (height * scale, width * scale, 3), dtype=np.uint8)
    plan = plan_tiles(height, width, tile=tile, overlap=4)
    order = data.draw(st.permutations(list(plan)))
    pixels = reduced(native, scale, out_width, out_height, plan, order)
    assert np.abs(pixels.astype(int) - resize(native, out_width, out_height)).max() <= 1


def text(width, height):
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for line in range(0, height, 9):
        draw.text((3, line), "The quick brown fox jumps over the lazy dog 0123456789 " * 8, fill="black")
    return np.asarray(image)


@pytest.mark.parametrize(("width", "height", "scale"), [(250, 300, 4), (350, 150, 2), (64, 700, 4)])
@pytest.mark.parametrize("factor", [1.01, 1.5, 1.97, 2.5, 3.3])
def test_the_output_does_not_depend_on_the_tiles(width: int, height: int, scale: int, factor: float) -> None:
    """At hard edges, where Lanczos overshoots, it matters which axis is reduced first."""
    size = round(width * factor), round(height * factor)
    native = text(width * scale, height * scale)
    if factor > scale:
        pytest.skip("the network does not enlarge so much")
    whole, *cut = (
        reduced(native, scale, *size, plan_tiles(height, width, tile=tile, overlap=8))
        for tile in (1000, 64, 100)
    )
    for each in cut:
        assert np.array_equal(each, whole)
    assert np.abs(whole.astype(int) - resize(native, *size)).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(144, 295), (140, 100), (100, 290), (300, 50)])
def test_columns_are_reduced_first_whatever_the_shape(width: int, height: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 147, 3), np.uint8))
    kind = Image.Resampling.LANCZOS
    expected = np.asarray(image.resize((width, image.height), kind).resize((width, height), kind))
    assert np.array_equal(resize(np.asarray(image), width, height), expected)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_reduced_image_never_holds_more_than_a_few_bands(factor: int) -> None:
    plan = plan_tiles(4000, 64, tile=64, overlap=4)
    canvas = Canvas(plan, 4, 64 * factor, 4000 * factor)
    tile = np.zeros((plan.height * 4, plan.width * 4, 3), np.uint8)
    held = []
    for one in plan:
        complete = canvas.paste(one, tile)
        held.append(len(canvas._rows) + sum(len(band.pixels) for band in canvas._bands.values()))
        if complete:
            canvas.reduce()
    assert max(held) <= 3 * plan.height * 4
