"""A network in blocks gives what the whole network gives, and takes less memory."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engines import find_devices
from engines.devices import blocks
from engines.devices.blocks import BlockSession
from engines.devices.sessions import Network

RUNTIMES = ["onnxruntime", *(name for name in ("openvino", "ncnn") if find_spec(name))]
STATUS = Path("/proc/self/status")


@pytest.fixture(scope="module")
def network(catalogue, model_directory):
    model = catalogue.get("realesrgan-x4plus-anime")
    return Network.build(model, model.weights[0], model_directory)


@pytest.fixture(scope="module")
def whole(network):
    """The network as its file has it."""
    session = onnxruntime.InferenceSession(network.path, providers=["CPUExecutionProvider"])
    return lambda tiles: session.run(None, {"image": tiles})[0]


@pytest.fixture(scope="module", params=RUNTIMES)
def session(request, network):
    """With blocks of some 250 pixels, so that even small tiles take several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BUDGET", 250 * network.split.bytes_per_pixel)
        return find_devices("cpu", request.param, "fp32")[0].open(network)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (2, 7), (31, 7), (31, 2), (1, 150), (150, 2), (33, 26)])
def test_blocks_differ_from_the_whole_network_by_one_level_at_most(session, whole, size):
    assert isinstance(session, BlockSession)
    tiles = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    difference = np.abs(session.run(tiles).astype(int) - whole(tiles))
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_each_tile_of_a_batch_runs_in_blocks(session, whole):
    tiles = np.random.default_rng(0).integers(0, 256, (2, 25, 17, 3), np.uint8)
    assert np.abs(session.run(tiles).astype(int) - whole(tiles)).max() <= 1


def test_onnx_runtime_gives_the_same_bytes(network, whole, monkeypatch):
    monkeypatch.setattr(blocks, "BUDGET", 0)
    session = find_devices("cpu", "onnxruntime")[0].open(network)
    tiles = np.random.default_rng(0).integers(0, 256, (1, 40, 29, 3), np.uint8)
    assert np.array_equal(session.run(tiles), whole(tiles))


@pytest.mark.parametrize("size", [(560, 560), (1, 313600), (313600, 1), (100, 3136)])
def test_a_block_stays_within_its_budget_whatever_the_shape_of_the_tile(network, size):
    split, largest = network.split, 0

    def body(tiles):
        return np.broadcast_to(np.float32(0), (1, 64, *tiles.shape[1:3]))

    def tail(values):
        nonlocal largest
        height, width = values.shape[2:]
        largest = max(largest, height * width * split.bytes_per_pixel)
        return np.broadcast_to(np.uint8(9), (1, 4 * height, 4 * width, 3))

    upscaled = BlockSession(body, tail, split, 4).run(np.zeros((1, *size, 3), np.uint8))
    assert upscaled.shape == (1, 4 * size[0], 4 * size[1], 3)
    assert (upscaled == 9).all()
    assert largest <= blocks.BUDGET


PEAK_OF_ONE_TILE = """
import sys
from pathlib import Path
import numpy as np
from engines import find_devices
from engines.devices.sessions import Network
from onnx_models import load_catalogue

model = load_catalogue().get("realesrgan-x4plus-anime")
network = Network.build(model, model.weights[0], Path(sys.argv[1]))
session = find_devices("cpu", sys.argv[2], "fp32")[0].open(network)
session.run(np.zeros((1, model.tile, model.tile, 3), np.uint8))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not STATUS.exists(), reason="the system does not tell how much memory is used")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_largest_tile_takes_two_and_a_half_gigabytes_at_most(network, runtime):
    """Whole, it would take 4.5 of them."""
    if runtime not in RUNTIMES:
        pytest.skip(f"{runtime} is not installed")
    command = [sys.executable, "-c", PEAK_OF_ONE_TILE, str(network.path.parent), runtime]
    peak = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    assert int(peak) * 1024 < 2.5e9
