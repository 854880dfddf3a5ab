"""What is asked of TensorRT for RTX, with the CPU in its place; and which cards are refused.

The names are those of the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0: its module, its header of options.
"""

import importlib
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from engines import ModelError, find_devices
from engines.devices import find as devices
from engines.devices import runtimes
from engines.devices.cuda import tensorrt_rtx
from engines.devices.cuda.device import CudaDevice
from engines.devices.cuda.driver import Gpu, index_of_bus
from engines.devices.cuda.tensorrt_rtx import RtxDevice, find_tensorrt_rtx
from engines.devices.sessions import Network, warmed_up
from onnx_models.graph import wrap_uint8
from tests.engines.support.tiny_networks import by_way_of

NAME = "NvTensorRTRTXExecutionProvider"
RTX_5090, RTX_3090, RTX_2080, H200 = (
    Gpu(f"NVIDIA {name}", capability)
    for name, capability in (
        ("GeForce RTX 5090", (12, 0)),
        ("GeForce RTX 3090", (8, 6)),
        ("GeForce RTX 2080", (7, 5)),
        ("H200", (9, 0)),
    )
)


def plugin(bus):
    return SimpleNamespace(ep_name=NAME, device=SimpleNamespace(metadata={"pci_bus_id": bus}))


@pytest.fixture
def machine(monkeypatch):
    """The wheel is installed; `cards` are what the driver finds, the plugin knows all but `hidden`."""

    class Machine:
        cards, hidden, registered, error = [RTX_5090], (), [], None

        @classmethod
        def devices(cls):
            found = [
                plugin(str(index)) for index in reversed(range(len(cls.cards))) if index not in cls.hidden
            ]
            return found if cls.registered else []

        @classmethod
        def register(cls, *given):
            if cls.error is not None:
                raise cls.error
            cls.registered.append(given)

    Machine.registered = []
    tensorrt_rtx._register.cache_clear()
    module = SimpleNamespace(
        get_ep_name=lambda: NAME, get_library_path=lambda: "/plugin.so", __version__="0.5.0"
    )
    monkeypatch.setattr(importlib, "import_module", {"onnxruntime_ep_nv_tensorrt_rtx": module}.__getitem__)
    monkeypatch.setattr(tensorrt_rtx.onnxruntime, "get_ep_devices", Machine.devices)
    monkeypatch.setattr(tensorrt_rtx.onnxruntime, "register_execution_provider_library", Machine.register)
    monkeypatch.setattr(tensorrt_rtx, "open_driver", object)
    monkeypatch.setattr(tensorrt_rtx, "gpus_of", lambda _driver: Machine.cards)
    monkeypatch.setattr(tensorrt_rtx, "index_of_bus", lambda _driver, bus: int(bus))
    return Machine


def gpus(machine):
    return tuple(CudaDevice(index, card.name) for index, card in enumerate(machine.cards))


def test_every_rtx_card_is_a_device_with_the_plugin_of_its_place_and_the_library_is_registered_once(machine):
    machine.cards = [RTX_5090, RTX_3090]
    for _ in range(2):
        found = find_tensorrt_rtx(gpus(machine))
        assert [each.name for each in found] == [
            "CUDA 0, NVIDIA GeForce RTX 5090, TensorRT for RTX",
            "CUDA 1, NVIDIA GeForce RTX 3090, TensorRT for RTX",
        ]
        assert [each.plugin.device.metadata["pci_bus_id"] for each in found] == ["0", "1"]
    assert machine.registered == [(NAME, "/plugin.so")]
    assert found[0].kind != CudaDevice(0, RTX_5090.name).kind


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (
            H200,
            r"NVIDIA H200 \(compute capability 9\.0\) is no card for TensorRT for RTX, which needs 8\.6",
        ),
        (RTX_2080, r"NVIDIA GeForce RTX 2080 \(compute capability 7\.5\) is too old for TensorRT for RTX"),
    ],
)
def test_a_card_that_it_does_not_know_is_refused_by_name(card, words, machine, caplog):
    machine.cards = [card]
    with pytest.raises(ModelError, match=words):
        find_tensorrt_rtx(gpus(machine))
    assert not machine.registered
    machine.cards = [card, RTX_5090]
    with caplog.at_level(logging.WARNING):
        assert [each.index for each in find_tensorrt_rtx(gpus(machine))] == [1]
    assert card.name in caplog.text


def test_where_it_is_missing_or_does_not_load_the_message_says_so(machine, monkeypatch):
    machine.error = RuntimeError("libcudart.so.13: cannot open shared object file")
    with pytest.raises(ModelError, match=r"TensorRT for RTX cannot be loaded: libcudart\.so\.13"):
        find_tensorrt_rtx(gpus(machine))
    machine.error, machine.hidden = None, (0,)
    with pytest.raises(ModelError, match=r"TensorRT for RTX 0\.5\.0 finds none of the GPUs"):
        find_tensorrt_rtx(gpus(machine))

    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(devices, "find_gpus", lambda _precision: gpus(machine))
    with pytest.raises(ModelError, match="pip install onnxruntime-ep-nv-tensorrt-rtx-cu13 brings it"):
        find_devices("auto", "tensorrt-rtx")


def test_it_is_for_gpus(monkeypatch):
    monkeypatch.setattr(devices, "find_gpus", lambda _precision: "no NVIDIA driver is installed")
    with pytest.raises(ModelError, match="no GPU can be used: no NVIDIA driver is installed"):
        find_devices("auto", "tensorrt-rtx")
    with pytest.raises(ModelError, match="TensorRT needs a GPU"):
        find_devices("cpu", "tensorrt-rtx")


def test_the_driver_knows_a_gpu_by_its_place():
    class Driver:
        def cuDeviceGetByPCIBusId(self, device, bus):  # noqa: N802
            device._obj.value = 3
            return 0 if bus == b"0000:41:00.0" else 101

    assert index_of_bus(Driver(), "0000:41:00.0") == 3
    assert index_of_bus(Driver(), "") is None


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "double.onnx"
    onnx.save(wrap_uint8(by_way_of(1), 2), path)
    return Network(path, 2, 16)


@pytest.fixture
def engines(monkeypatch, opened):
    """What was opened by the plugin: its device and options."""
    engines = []

    def plugin_session(model, threads, device, options):
        engines.append((device, options))
        return runtimes.inference_session(model, threads, ("CPUExecutionProvider", {}))

    monkeypatch.setattr(tensorrt_rtx, "plugin_session", plugin_session)
    return engines


DEVICE = RtxDevice(0, "RTX 5090", "auto", "0.5.0", plugin="the plugin")


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def doubled(tiles):
    return tiles.repeat(2, 1).repeat(2, 2)


def test_networks_in_half_precision_run_in_engines_that_are_kept_and_bounded_by_the_tile(
    network, engines, opened
):
    session = warmed_up(DEVICE.open(network))
    ((device, options),) = engines
    assert device == "the plugin"
    cache = options.pop("nv_runtime_cache_path")
    assert cache.startswith(str(network.path.parent / "tensorrt-for-rtx" / "double-"))
    assert options == {
        "nv_profile_min_shapes": "image:1x1x1x3",
        "nv_profile_opt_shapes": "image:1x16x16x3",
        "nv_profile_max_shapes": "image:4x16x16x3",
    }
    assert [list(each.providers) for each in opened] == [["CUDAExecutionProvider"]], (
        "what it is compared with"
    )
    assert np.array_equal(session.run(noise(4, 16, 12)), doubled(noise(4, 16, 12)))
    assert np.array_equal(session.run(noise(1, 40, 6)), doubled(noise(1, 40, 6)))
    assert len(opened) == 3, "beyond the bounds CUDA runs it, by its own two"


def test_single_precision_is_left_to_cuda_as_there_it_might_be_tf32(network, engines, opened, caplog):
    with caplog.at_level(logging.INFO):
        session = replace(DEVICE, precision="fp32").open(network)
    assert not engines
    assert "TensorRT for RTX leaves double.onnx to CUDA: it computes in fp32" in caplog.text
    assert np.array_equal(session.run(noise(1, 8, 8)), doubled(noise(1, 8, 8)))
    assert opened[-1].options["use_tf32"] == "0"
