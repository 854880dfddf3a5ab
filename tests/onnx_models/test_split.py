"""Which networks are cut in two, where, and that the parts give what the whole gives."""

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_models import ModelBuildError, OnnxWeights, WeightFile, ensure_network, load_catalogue, ncnn_blob
from onnx_models.build import ncnn_files
from onnx_models.errors import NcnnFormatError
from onnx_models.files import sha256_of
from onnx_models.graph import wrap_uint8
from onnx_models.split import split_network
from tests.onnx_models.support.tiny import network, upscaler

CHANNELS = 8


@pytest.fixture(scope="module")
def anime(catalogue, model_directory):
    model = catalogue.get("realesrgan-x4plus-anime")
    return ensure_network(model, model.weights[0], model_directory)


@pytest.fixture(scope="module")
def parts(anime, open_session):
    return anime.split, open_session(anime.split.body), open_session(anime.split.tail)


def run(session, batch):
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


@pytest.mark.parametrize("size", [(1, 1), (2, 31), (7, 1), (33, 26)])
def test_the_parts_one_after_the_other_give_what_the_whole_gives(parts, anime, open_session, size):
    _, body, tail = parts
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    values = run(body, images)
    assert values.shape[2:] == size
    assert np.array_equal(run(tail, values), run(open_session(anime.path), images))


def test_the_halo_is_how_far_the_tail_looks_and_no_more(parts):
    split, _, tail = parts
    values = np.random.default_rng(0).normal(0, 1, (1, 64, 21, 21)).astype(np.float32)
    changed = values.copy()
    changed[:, :, 10, 10] += 100
    rows, columns = np.nonzero((run(tail, values) != run(tail, changed)).any((0, 3)))
    for places in (rows, columns):
        assert {places.min() // 4, places.max() // 4} == {10 - split.halo, 10 + split.halo}


@pytest.mark.parametrize(
    ("name", "splits"),
    [("realesrgan-x4plus", True), ("realesrgan-x4plus-anime", True), ("realesr-animevideov3", False)],
)
def test_networks_that_enlarge_before_their_last_layers_are_split(catalogue, model_directory, name, splits):
    model = catalogue.get(name)
    for weights in model.weights:
        assert (ensure_network(model, weights, model_directory).split is not None) == splits


def test_the_cut_is_a_blob_of_the_ncnn_network(anime):
    param = ncnn_files(load_catalogue().get("realesrgan-x4plus-anime").weights[0])[0].read_bytes()
    blob = ncnn_blob(param, anime.split.cut)
    readers = [line for line in param.decode().splitlines() if blob in line.split()]
    assert [line.split()[0] for line in readers] == ["BinaryOp", "Interp"]
    with pytest.raises(NcnnFormatError, match=r"no layer of the \.param file computes nothing"):
        ncnn_blob(param, "nothing")


def saved(network, path):
    onnx.save(network, path)
    return OnnxWeights(2, WeightFile(str(path), sha256_of(path)))


@pytest.fixture
def tiny(catalogue, tmp_path):
    """An added model of two parts, and an empty folder for these."""
    weights = saved(enlarging(), tmp_path / "enlarging.onnx")
    model = msgspec.structs.replace(
        catalogue.get("realesrgan-x4plus"), name="enlarging", weights=(weights,), factors=(2,)
    )
    return model, weights, tmp_path / "parts"


def enlarging(*, skip=False, mode="asymmetric", nearest="floor", pads=1, kind="LeakyRelu", kernel=3):
    """Convolutions, with one resize by 2 between them."""
    wide = np.full((CHANNELS, 3, 3, 3), 0.1, np.float32)
    same = np.full((CHANNELS, CHANNELS, kernel, kernel), 0.1, np.float32)
    narrow = np.full((3, CHANNELS, 3, 3), 0.1, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "wide"], ["features"], pads=[1] * 4),
        helper.make_node(
            "Resize",
            ["features", "", "scales"],
            ["larger"],
            mode="nearest",
            coordinate_transformation_mode=mode,
            nearest_mode=nearest,
        ),
        helper.make_node("Conv", ["larger", "same"], ["refined"], pads=[pads] * 4),
        helper.make_node(kind, ["refined"], ["active"]),
        helper.make_node("Conv", ["active", "narrow"], ["detail"], pads=[1] * 4),
        helper.make_node("Resize", ["x", "", "scales"], ["enlarged"], mode="nearest"),
        helper.make_node("Add", ["detail", "enlarged" if skip else "detail"], ["y"]),
    ]
    values = {"wide": wide, "same": same, "narrow": narrow, "scales": np.float32([1, 1, 2, 2])}
    return wrap_uint8(network(nodes, values), 2)


@pytest.mark.parametrize(("kernel", "halo"), [(1, 1), (3, 1), (5, 2), (7, 2), (11, 3)])
def test_the_halo_grows_with_the_kernels(kernel, halo):
    split = split_network(enlarging(kernel=kernel, pads=kernel // 2), 2)
    assert (split.cut, split.halo) == ("features", halo)
    assert split.bytes_per_pixel == 4 * (2 * CHANNELS) * 2**2


@pytest.mark.parametrize(
    "network",
    [
        enlarging(skip=True),
        enlarging(mode="half_pixel"),
        enlarging(nearest="ceil"),
        enlarging(pads=0),
        enlarging(kind="GlobalAveragePool"),
        enlarging(kernel=35, pads=17),
        wrap_uint8(upscaler(), 2),
    ],
    ids=["skip", "half_pixel", "ceil", "unpadded", "global", "far-sighted", "pixel-shuffle"],
)
def test_networks_whose_end_is_of_another_kind_stay_whole(network):
    assert split_network(network, 2) is None


def test_a_network_in_half_precision_stays_whole():
    halved = enlarging()
    for tensor in halved.graph.initializer:
        if tensor.name == "same":
            tensor.data_type = TensorProto.FLOAT16
    assert split_network(halved, 2) is None


@pytest.mark.parametrize("damage", ["body.onnx", "tail.onnx", "parts.json"])
@pytest.mark.parametrize("content", [None, b"", b"\xff{"])
def test_parts_that_are_not_as_they_should_be_are_made_again(tiny, damage, content):
    good = ensure_network(*tiny)
    files = [file.read_bytes() for file in (good.split.body, good.split.tail)]
    file = good.split.body.with_name(f"enlarging-2x.{damage}")
    file.unlink() if content is None else file.write_bytes(content)
    assert ensure_network(*tiny) == good
    assert [file.read_bytes() for file in (good.split.body, good.split.tail)] == files


def test_parts_are_made_once_and_again_for_another_network(tiny, tmp_path):
    model, _, directory = tiny
    made = ensure_network(*tiny).split.body.stat()
    assert ensure_network(*tiny).split.body.stat() == made
    other = saved(enlarging(kernel=5, pads=2), tmp_path / "other.onnx")
    built = ensure_network(msgspec.structs.replace(model, weights=(other,)), other, directory)
    assert (built.split.halo, built.sha256) == (2, other.file.sha256)


def test_what_cannot_be_written_is_a_build_error(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelBuildError, match="cannot be written"):
        ensure_network(*tiny[:2], tmp_path / "file")


def test_a_file_that_is_no_network_is_a_build_error(tiny, tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"not a network")
    weights = OnnxWeights(2, WeightFile(str(tmp_path / "no.onnx"), sha256_of(tmp_path / "no.onnx")))
    with pytest.raises(ModelBuildError, match=r"no\.onnx is no ONNX file"):
        ensure_network(msgspec.structs.replace(tiny[0], weights=(weights,)), weights, tiny[2])
