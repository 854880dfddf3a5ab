"""Tiles on GPUs come in few shapes, and cost little more."""

import itertools
import math
import random
from collections import Counter

import pytest

from engines.devices.cuda.device import CudaDevice
from engines.devices.cuda.graphs import MOST_GRAPHS
from engines.devices.cuda.session import parts_of
from engines.tiling.menu import side_for, sides_for
from engines.tiling.tiles import BORDER, plan_tiles
from onnx_models import load_catalogue

COMMON = [
    (512, 512), (768, 768), (1024, 1024), (832, 1216), (1216, 832), (1024, 1536), (1536, 1024), (896, 1152),
    (1152, 896), (768, 1344), (512, 768), (768, 512), (640, 640), (1080, 1080), (256, 256), (128, 128),
    (640, 480), (800, 600), (1024, 768), (1280, 720), (1920, 1080), (1080, 1920), (1600, 1200), (4032, 3024),
    (3000, 2000), (64, 64), (320, 240), (480, 360), (100, 100), (32, 32),
]  # fmt: skip

MODELS = [model for model in load_catalogue() if model.latent is None]


def trace(count=2000):
    """Sizes of pictures: half of them common ones, the others of 32 to 2500 pixels, up to 2 : 1."""
    numbers = random.Random(1)
    for _ in range(count):
        if numbers.random() < 0.5:
            yield numbers.choice(COMMON)
        else:
            side = math.exp(numbers.uniform(math.log(32), math.log(2500)))
            ratio = math.exp(numbers.uniform(-0.35, 0.35))
            yield round(side * ratio), round(side / ratio)


def plan(model, height, width, sides):
    return plan_tiles(height, width, tile=model.tile, overlap=model.overlap, border=BORDER, sides=sides)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_pictures_of_all_sizes_come_in_no_more_shapes_than_there_are_graphs(model):
    sides, shapes, pixels = sides_for(model.tile, model.overlap), Counter(), Counter()
    largest = CudaDevice(0, "H200").largest_batch
    for height, width in trace():
        of_menu, of_any = plan(model, height, width, sides), plan(model, height, width, ())
        pixels["menu"] += len(of_menu) * of_menu.height * of_menu.width
        pixels["any"] += len(of_any) * of_any.height * of_any.width
        for batch in (len(of_menu), 2 * len(of_menu)):  # alone, and with another one of the size
            for first in range(0, batch, largest):
                for part in parts_of(min(largest, batch - first), largest):
                    shapes[of_menu.height, of_menu.width, part.stop - part.start] += 1
    assert len(shapes) <= MOST_GRAPHS
    assert pixels["menu"] <= 1.12 * pixels["any"]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_common_pictures_take_hardly_more_work_than_in_tiles_of_any_side(model):
    sides = sides_for(model.tile, model.overlap)
    for side in (128, 256, 512, 768, 1024):
        of_menu, of_any = (plan(model, side, side, menu) for menu in (sides, ()))
        assert of_menu.height == of_menu.width == side_for(side, model.tile, model.overlap)
        assert len(of_menu) * of_menu.height**2 <= 1.05 * len(of_any) * of_any.height**2


@pytest.mark.parametrize(("tile", "overlap"), [(24, 5), (33, 16), (192, 16), (1024, 32), (4096, 0)])
def test_the_largest_tile_is_always_there_and_sides_differ_by_enough_to_be_worth_it(tile, overlap):
    sides = sides_for(tile, overlap)
    assert sides[-1] == tile
    assert all(shorter < 0.95 * longer for shorter, longer in itertools.pairwise(sides))
