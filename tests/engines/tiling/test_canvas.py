"""Tiles become the output, by bands where it is not of a native size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.codecs.picture import resize
from engines.tiling.canvas import Canvas
from engines.tiling.tiles import plan_tiles

sides = st.integers(1, 120)


@settings(deadline=None)
@given(height=sides, width=sides, tile=st.integers(9, 60), scale=st.sampled_from([2, 4]), data=st.data())
def test_the_output_is_the_whole_native_image_reduced(
    height: int, width: int, tile: int, scale: int, data: st.DataObject
) -> None:
    factor = data.draw(st.floats(1, scale))
    out_height, out_width = max(1, round(height * factor)), max(1, round(width * factor))
    rng = np.random.default_rng(height * 1000 + width)
    # Smooth: where Lanczos overshoots, what is clipped depends on which axis Pillow takes first.
    coarse = rng.integers(64, 192, (3, 3, 3), dtype=np.uint8)
    native = resize(coarse, width * scale, height * scale)
    plan = plan_tiles(height, width, tile=tile, overlap=4)
    canvas = Canvas(plan, scale, out_width, out_height)
    for one in data.draw(st.permutations(list(plan))):
        window = native[
            one.rows.start * scale : one.rows.stop * scale,
            one.columns.start * scale : one.columns.stop * scale,
        ]
        if canvas.paste(one, window):
            canvas.reduce()
    assert canvas.is_complete
    whole = resize(native, out_width, out_height)
    assert np.abs(canvas.pixels.astype(int) - whole).max() <= 2  # each of Pillow's two passes rounds


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
