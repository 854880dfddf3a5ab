"""The `ncnn` package, running the same files, is the reference."""

import numpy as np
import pytest

from onnx_models import NcnnFormatError, NcnnWeights, UnsupportedLayerError, load_catalogue, ncnn
from onnx_models.files import sha256_of
from onnx_models.packages import read_member
from tests.onnx_models.support.archives import ARCHIVES, archive_at_hand
from tests.onnx_models.support.ncnn_networks import FLOAT32_TAG, like_span, like_waifu2x, run_ncnn
from tests.onnx_models.support.ncnn_networks import param as network

CATALOGUE = load_catalogue()
STAGES = [
    pytest.param(download, stage, id=f"{download.name}-{stage[1]}")
    for download in CATALOGUE.downloads
    for stage in sorted({stage for each in download.networks for stage in each.stages})
]
LARGE = "realesrgan-x4plus"  # as x4plus-anime, with more of the same layers
WEIGHTS = [
    pytest.param(
        weights, id=f"{model.name}-{weights.scale}x", marks=[pytest.mark.slow] if model.name == LARGE else []
    )
    for model in load_catalogue()
    for weights in model.weights
    if isinstance(weights, NcnnWeights)
]
INPUT = "Input in 0 1 data"


def test_the_catalogue_names_five_weight_files():
    assert len(WEIGHTS) == 5


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("size", [pytest.param((24, 20), marks=pytest.mark.slow), (17, 23)])
def test_every_network_computes_what_ncnn_computes(
    weights, size, core_network, reference_network, photograph
):
    image = photograph(*size).transpose(2, 0, 1).astype(np.float32) / 255
    batch = np.stack([image, image[:, ::-1, ::-1]])
    upscaled = core_network(weights)(batch)
    assert upscaled.dtype == np.float32
    assert upscaled.shape == (2, 3, weights.scale * size[0], weights.scale * size[1])
    reference = reference_network(weights)
    for one, expected in zip(upscaled, map(reference, map(np.ascontiguousarray, batch)), strict=True):
        assert np.abs(one - expected).max() <= 1e-4


@pytest.mark.parametrize(
    "files", [like_span(2), like_span(3), like_waifu2x()], ids=["SPAN, x2", "SPAN, x3", "waifu2x"]
)
def test_small_networks_with_the_layers_of_others_compute_what_ncnn_computes(
    files, tmp_path, open_session, photograph
):
    paths = tmp_path / "x.param", tmp_path / "x.bin"
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    image = photograph(17, 23).transpose(2, 0, 1).astype(np.float32) / 255
    session = open_session(ncnn.convert(*files))
    (found,) = session.run(None, {session.get_inputs()[0].name: image[np.newaxis]})
    expected = run_ncnn(*paths)(image)
    assert found[0].shape == expected.shape
    assert expected.std() > 0.01
    assert np.abs(found[0] - expected).max() <= 1e-5


@pytest.mark.parametrize(("download", "stage"), STAGES)
def test_what_can_be_fetched_computes_what_ncnn_computes(download, stage, tmp_path, open_session, photograph):
    paths = []
    for key in stage:
        (source, *_) = download.files[key].sources
        package = CATALOGUE.archives[source.archive]
        if (archive := archive_at_hand(package.sha256)) is None:
            pytest.skip(f"{package.package} {package.version} is not in the folder that {ARCHIVES} names")
        path = tmp_path / key
        path.write_bytes(read_member(archive, source.member, download.files[key].size))
        assert sha256_of(path) == download.files[key].sha256
        paths.append(path)
    image = photograph(31, 24).transpose(2, 0, 1).astype(np.float32) / 255
    session = open_session(ncnn.convert(*(path.read_bytes() for path in paths)))
    (found,) = session.run(None, {session.get_inputs()[0].name: image[np.newaxis]})
    assert np.abs(found[0] - run_ncnn(*paths)(image)).max() <= 1e-4


def test_fp16_kernels_are_padded_to_four_bytes(open_session):
    """Three fp16 weights take six bytes, so two bytes of padding come before the bias."""
    param = network(INPUT, "Convolution conv 1 1 data out 0=1 1=1 5=1 6=3")
    numbers = (
        b"\x47\x6b\x30\x01" + np.array([1, 2, 4, 99], "<f2").tobytes() + np.array([0.5], "<f4").tobytes()
    )
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    (output,) = open_session(ncnn.convert(param, numbers)).run(None, {"data": image})
    expected = image[:, 0] + 2 * image[:, 1] + 4 * image[:, 2] + 0.5
    np.testing.assert_array_equal(output[:, 0], expected)


@pytest.mark.parametrize(("mode", "channels"), [(0, (0, 1, 2, 3)), (1, (0, 3, 6, 9))])
def test_pixel_shuffle_orders_channels_as_its_mode_says(mode, channels, open_session):
    """Mode 0 takes a colour's pixels from neighbouring channels, mode 1 from channels three apart."""
    to_twelve = "Convolution conv 1 1 data wide 0=12 1=1 6=36"
    param = network(INPUT, to_twelve, f"PixelShuffle shuffle 1 1 wide out 0=2 1={mode}")
    kernel = np.zeros((12, 3), "<f4")
    kernel[:, 0] = np.arange(12)
    session = open_session(ncnn.convert(param, FLOAT32_TAG + kernel.tobytes()))
    (output,) = session.run(None, {"data": np.ones((1, 3, 1, 1), np.float32)})
    np.testing.assert_array_equal(output[0, 0].ravel(), channels)


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        ("Softmax soft 1 1 data out", r"layer soft: the type Softmax is not supported"),
        ("Convolution c 1 1 data out 0=1 1=1 3=2 6=3", r"c \(Convolution\): parameter 3"),
        ("Convolution c 1 1 data out 0=1 1=1 4=-233 6=3", "padding -233"),
        ("Convolution c 1 1 data out 0=1 1=1 6=3 9=1", "activation 1 with 0 arguments"),
        ("Convolution c 1 1 data out -23300=2,1,1 1=1 6=3", "parameter 0 as an array"),
        ("Eltwise e 2 1 data data out 0=0", "operation 0"),
        ("Eltwise e 2 1 data data out 0=1 -23301=3,1,1,1", "a sum with 3 coefficients"),
        ("Eltwise e 3 1 data data data out 0=1", "taking 3 blobs"),
        ("BinaryOp b 2 1 data data out 0=3", "operation 3"),
        ("BinaryOp b 2 1 data data out 1=1 2=0.5", "taking 2 blobs"),
        ("Deconvolution d 1 1 data out 0=1 1=1 6=3 18=1", r"d \(Deconvolution\): parameter 18"),
        ("Input in2 0 1 grey 0=8 1=8 2=1", "an image of 1 channels"),
        ("MemoryData m 0 1 out 0=1 1=1 2=0", "a constant of 1 x 1 x 0"),
        ("MemoryData m 0 1 out 0=1 1=1 2=3 21=0", r"m \(MemoryData\): parameter 21"),
        ("Swish s 2 1 data data out", "taking 2 blobs"),
        ("BinaryOp b 2 2 data data out more", "giving 2 blobs"),
        ("PixelShuffle p 1 1 data out 0=2 1=2", "mode 2"),
        ("Interp i 1 1 data out 0=2 1=2 2=2", "resize type 2"),
        ("Interp i 1 1 data out 0=1 1=2 2=2 6=1", r"i \(Interp\): parameter 6"),
    ],
)
def test_a_layer_without_an_onnx_form_is_refused_by_name(layer, complaint):
    with pytest.raises(UnsupportedLayerError, match=complaint):
        ncnn.convert(network(INPUT, layer), FLOAT32_TAG + bytes(12))


def test_weights_in_an_unknown_storage_are_refused():
    param = network(INPUT, "Convolution c 1 1 data out 0=1 1=1 6=3")
    with pytest.raises(UnsupportedLayerError, match=r"c \(Convolution\): weight storage 0x000d4b38"):
        ncnn.convert(param, b"\x38\x4b\x0d\x00" + bytes(4))


@pytest.mark.parametrize(
    ("layers", "numbers", "complaint"),
    [
        (["BinaryOp b 2 1 data later out"], b"", "reads later, which no layer before it writes"),
        (["Convolution c 1 1 data out 0=2 1=3 6=53"], b"", "53 weights do not fill 2 kernels"),
        (["Convolution c 1 1 data out 0=1 1=1 6=3"], FLOAT32_TAG + bytes(11), r"ends within layer c \(Conv"),
        (["BinaryOp b 2 1 data data out"], bytes(4), "holds more numbers than"),
        (["BinaryOp b 2 1 data data x", "BinaryOp c 2 1 data data y"], b"", "1 inputs and 2 outputs"),
        (["Input more 0 1 more", "BinaryOp b 2 1 data more out"], b"", "2 inputs and 1 outputs"),
    ],
)
def test_files_that_do_not_make_a_network_are_refused(layers, numbers, complaint):
    with pytest.raises(NcnnFormatError, match=complaint):
        ncnn.convert(network(INPUT, *layers), numbers)
