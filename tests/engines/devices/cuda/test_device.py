"""How networks are opened on NVIDIA GPUs, with the CPU in their place; test_gpu.py has the real thing."""

import logging
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest

from engines import DeviceLostError, DeviceOutOfMemoryError, ModelError, find_devices
from engines.devices.cuda import device as cuda_device
from engines.devices.cuda.device import CudaDevice
from engines.devices.cuda.session import parts_of
from engines.devices.failures import as_model_error
from engines.devices.ort import OrtSession
from engines.devices.parts import Part
from engines.devices.sessions import Network
from engines.tiling.menu import sides_for
from onnx_models import largest_activation, load_catalogue
from onnx_models.graph import wrap_uint8
from tests.engines.support.fake_gpu import RecordingGate
from tests.engines.support.tiny_networks import by_way_of


def test_a_gpu_that_cannot_be_used_is_a_model_error_not_the_cpu(small_network):
    with pytest.raises(ModelError, match=r"cannot be loaded on CUDA 99, none"):
        CudaDevice(99, "none").open(small_network)


def saved(model, path):
    onnx.save(model, path)
    return Network(path, 2, 16)


@pytest.fixture
def network(tmp_path):
    return saved(wrap_uint8(by_way_of(1), 2), tmp_path / "double.onnx")


@pytest.fixture
def overflowing(tmp_path):
    return saved(wrap_uint8(by_way_of(1e6), 2), tmp_path / "huge.onnx")


def test_a_network_that_stays_near_itself_runs_in_half_precision(small_network, opened):
    session = CudaDevice(0, "H200").open(replace(small_network, tile=16, overlap=0))
    half, full = opened
    assert (half.halved, half.graphs) == (True, True)
    assert (full.halved, full.graphs) == (False, False)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), np.uint8)
    expected = find_devices("cpu", "onnxruntime")[0].open(small_network).run(tiles)
    assert np.abs(session.run(tiles).astype(int) - expected).max() <= 1


def test_single_precision_is_computed_without_tf32_and_without_what_turns_it_on_again(network, opened):
    CudaDevice(3, "H200").open(network)
    CudaDevice(3, "H200", "fp32").open(network)
    options = ("use_tf32", "prefer_nhwc", "fuse_conv_bias")
    assert [(each.halved, *map(each.options.get, options)) for each in opened] == [
        (True, None, "1", "1"),
        (False, "0", "0", None),
        (False, "0", "0", None),
    ]
    assert all(each.options["device_id"] == "3" for each in opened)


def test_a_network_that_overflows_runs_in_single_precision_and_one_line_says_so(overflowing, opened, caplog):
    caplog.set_level(logging.INFO)
    session = CudaDevice(0, "H200").open(overflowing)
    assert [each.halved for each in opened] == [True, False, False]
    tiles = np.full((1, 8, 8, 3), 77, np.uint8)
    assert np.array_equal(session.run(tiles), tiles.repeat(2, 1).repeat(2, 2))
    (line,) = [record.message for record in caplog.records]
    assert re.fullmatch(r"CUDA 0, H200 computes in fp32: in fp16 huge\.onnx is within -?\d+ dB only", line)


def test_half_precision_that_is_asked_for_by_name_is_given_unseen(overflowing, opened):
    CudaDevice(0, "H200", "fp16").open(overflowing)
    assert [each.halved for each in opened] == [True]


def test_half_precision_that_cannot_be_had_is_an_error_only_where_it_is_asked_for(tmp_path, opened):
    network = saved(by_way_of(1), tmp_path / "own.onnx")
    with pytest.raises(ModelError, match=r"own\.onnx has no fp16 form: it takes pixels in a way of its own"):
        CudaDevice(0, "H200", "fp16").open(network)
    assert not opened


def test_graphs_are_left_out_where_onnx_runtime_has_the_fault(network, opened, monkeypatch):
    monkeypatch.setattr(cuda_device.onnxruntime, "__version__", "1.30.2")
    CudaDevice(0, "H200", "fp32").open(network)
    assert [each.graphs for each in opened] == [False]


def test_a_device_that_is_lost_while_it_loads_is_lost(network, opened, monkeypatch):
    def lose(*_):
        raise RuntimeError("CUDA failure 719: unspecified launch failure")

    monkeypatch.setattr(cuda_device, "inference_session", lose)
    with pytest.raises(DeviceLostError, match="cannot be loaded on CUDA 0, H200"):
        CudaDevice(0, "H200").open(network)


def ended_by(monkeypatch):
    """For each session that ends, whether that was within the gate."""
    gate, ended = RecordingGate(), []
    monkeypatch.setattr(cuda_device, "GATE", gate)
    make = cuda_device.inference_session

    class Ending:
        def __init__(self, session):
            self.session = session

        def __getattr__(self, name):
            return getattr(self.session, name)

        def __del__(self):
            ended.append(gate.allows_freeing)

    monkeypatch.setattr(cuda_device, "inference_session", lambda *given: Ending(make(*given)))
    monkeypatch.setattr(cuda_device, "open_ort", lambda path, *_: OrtSession(Ending(make(path, 1, CUDA))))
    return gate, ended


CUDA = ("CUDAExecutionProvider", {})


def test_the_session_that_half_precision_is_compared_with_ends_within_the_gate(network, opened, monkeypatch):
    _, ended = ended_by(monkeypatch)
    session = CudaDevice(0, "H200").open(network)
    assert ended == [True]
    session.close()


@pytest.mark.parametrize("words", ["CUDA failure 2: out of memory", "CUDNN_STATUS_BAD_PARAM"])
def test_what_was_opened_for_a_comparison_that_fails_ends_within_the_gate(
    words, network, opened, monkeypatch
):
    def fail(_half, full):
        raise as_model_error(RuntimeError(words), full.run.__name__)

    _, ended = ended_by(monkeypatch)
    monkeypatch.setattr(cuda_device, "parity", fail)
    try:
        session = CudaDevice(0, "H200").open(network)
    except DeviceOutOfMemoryError as error:
        kept = error  # as a load keeps it
        assert "out of memory" in str(kept)
    else:
        assert not session.halved if hasattr(session, "halved") else True
    assert ended == [True, True]


def test_a_part_that_goes_ends_within_the_gate(network, opened, monkeypatch):
    gate, ended = ended_by(monkeypatch)
    part = CudaDevice(0, "H200").open_part(Part(network.path))
    tiles = np.zeros((1, 8, 8, 3), np.uint8)
    assert part.run_part((tiles,))[0].shape == (1, 16, 16, 3)
    del part
    assert not ended
    with gate.use():
        assert ended == [True]


def test_no_run_computes_a_value_with_more_elements_than_32_bits_count(network, opened, monkeypatch):
    monkeypatch.setattr(cuda_device, "_MOST_ELEMENTS", 4 * 16 * 16 * 3 * 4)  # of four results of 32 × 32
    session = CudaDevice(0, "H200", "fp32").open(network)
    runs = []
    session._memory.copy_in = lambda _to, _from, size: runs.append(size // (16 * 16 * 3))
    session.run(np.zeros((7, 16, 16, 3), np.uint8))
    assert runs == [4, 1, 1, 1]
    with pytest.raises(DeviceOutOfMemoryError):
        session.run(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "model", [each for each in load_catalogue() if each.latent is None], ids=lambda m: m.name
)
def test_no_batch_of_any_network_is_run_beyond_what_32_bits_count(model, model_directory, opened):
    for weights in model.weights:
        network = Network.build(model, weights, model_directory)
        session = CudaDevice(0, "H200", "fp32").open(network)
        for side in sides_for(network.tile, network.overlap):
            elements = largest_activation(network.path, side, side)
            for batch in range(1, CudaDevice(0, "H200").largest_batch + 1):
                parts = parts_of(batch, session._most_pixels // side**2)
                largest = max(part.stop - part.start for part in parts)
                assert elements * largest < 2**31
        session.close()


def test_what_is_measured_holds_for_equal_hardware_and_precision():
    assert CudaDevice(0, "H200").kind == CudaDevice(1, "H200").kind
    assert CudaDevice(0, "H200").kind != CudaDevice(0, "H200", "fp32").kind
