"""Which networks are cut in two, where, and that the parts give what the whole gives."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

from onnx_models import ensure_built, load_catalogue, ncnn_blob, split_file
from onnx_models.build import ncnn_files
from onnx_models.errors import NcnnFormatError
from onnx_models.graph import wrap_uint8
from onnx_models.split import split_network
from tests.onnx_models.support.tiny import network, upscaler

CHANNELS = 8


@pytest.fixture(scope="module")
def anime(catalogue, model_directory):
    model = catalogue.get("realesrgan-x4plus-anime")
    return ensure_built(model, model.weights[0], model_directory)


@pytest.fixture(scope="module")
def parts(anime, open_session):
    split = split_file(anime, 4)
    return split, *(open_session(onnx.load_from_string(part)) for part in (split.body, split.tail))


def run(session, batch):
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


@pytest.mark.parametrize("size", [(1, 1), (2, 31), (7, 1), (33, 26)])
def test_the_parts_one_after_the_other_give_what_the_whole_gives(parts, anime, open_session, size):
    _, body, tail = parts
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    values = run(body, images)
    assert values.shape[2:] == size
    assert np.array_equal(run(tail, values), run(open_session(anime), images))


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
        path = ensure_built(model, weights, model_directory)
        assert (split_file(path, weights.scale) is not None) == splits


def test_the_cut_is_a_blob_of_the_ncnn_network(anime):
    param = ncnn_files(load_catalogue().get("realesrgan-x4plus-anime").weights[0])[0].read_bytes()
    blob = ncnn_blob(param, split_file(anime, 4).cut)
    readers = [line for line in param.decode().splitlines() if blob in line.split()]
    assert [line.split()[0] for line in readers] == ["BinaryOp", "Interp"]
    with pytest.raises(NcnnFormatError, match=r"no layer of the \.param file computes nothing"):
        ncnn_blob(param, "nothing")


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
    split = split_network(enlarging(kernel=kernel, pads=kernel // 2).SerializeToString(), 2)
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
    assert split_network(network.SerializeToString(), 2) is None


def test_a_network_in_half_precision_stays_whole():
    halved = enlarging()
    for tensor in halved.graph.initializer:
        if tensor.name == "same":
            tensor.data_type = TensorProto.FLOAT16
    assert split_network(halved.SerializeToString(), 2) is None


def test_a_network_whose_weights_lie_in_another_file_stays_whole():
    apart = enlarging()
    for tensor in apart.graph.initializer:
        if tensor.name == "wide":
            external_data_helper.set_external_data(tensor, "weights.bin")
            tensor.ClearField("raw_data")
    assert split_network(enlarging().SerializeToString(), 2) is not None
    assert split_network(apart.SerializeToString(), 2) is None


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_a_file_that_is_missing_or_no_network_is_not_split(content, tmp_path):
    if content is not None:
        (tmp_path / "broken.onnx").write_bytes(content)
    assert split_file(tmp_path / "broken.onnx", 2) is None
