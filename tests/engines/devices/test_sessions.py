"""What sessions give, what is refused, and what the runtimes' messages mean."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import DeviceLostError, DeviceOutOfMemoryError, ModelError, find_devices
from engines.devices.failures import as_model_error
from engines.devices.sessions import Network, probe, run_checked
from onnx_models.graph import wrap_uint8
from tests.engines.support.resident import memory_of_a_large_run

RUNTIMES = ["onnxruntime", *(name for name in ("openvino", "ncnn") if find_spec(name))]


@pytest.fixture(scope="module", params=RUNTIMES)
def cpu(request):
    return find_devices("cpu", request.param)[0]


@pytest.fixture(scope="module")
def session(cpu, small_network):
    return cpu.open(small_network)


def test_a_session_takes_and_gives_batches_of_uint8_images(session):
    upscaled = session.run(np.zeros((2, 5, 7, 3), np.uint8))
    assert (upscaled.shape, upscaled.dtype) == ((2, 10, 14, 3), np.uint8)


def test_a_batch_may_be_read_only_or_a_part_of_another(session):
    whole = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 3), np.uint8)
    part = whole[::2, 1:6, 2:9]
    expected = session.run(part.copy())
    whole.flags.writeable = False
    assert (session.run(part) == expected).all()
    assert session.run(whole).shape == (3, 16, 18, 3)


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the system does not tell what is in memory"
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_memory_of_a_large_run_can_be_given_back(runtime, small_network):
    before, after, left, works = memory_of_a_large_run(runtime, small_network)
    assert after > before + 10e6
    assert left - before < 0.3 * (after - before) + 2e6
    assert works


def test_what_a_network_cannot_take_is_a_model_error(session):
    session.run(np.full((1, 5, 7, 3), 9, np.uint8))  # its result must not be given again
    with pytest.raises(ModelError, match=r"the model failed on a batch of \(1, 5, 7, 4\)"):
        session.run(np.zeros((1, 5, 7, 4), np.uint8))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("realesrgan-x4plus", marks=pytest.mark.slow),
        "realesrgan-x4plus-anime",
        "realesr-animevideov3",
    ],
)
def test_the_networks_of_the_catalogue_pass_the_probe(cpu, name, catalogue, model_directory):
    model = catalogue.get(name)
    for weights in model.weights:
        network = Network.build(model, weights, model_directory)
        probe(cpu.open(network), network)


def core(factor=1.0, *, scale=2):
    """A network of one layer, nearest neighbour, times `factor`."""
    image = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])]
    result = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "H", "W"])]
    constants = {"factor": np.float32(factor), "scales": np.float32([1, 1, scale, scale])}
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("Resize", ["scaled", "", "scales"], ["y"], mode="nearest"),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "core", image, result, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def network(tmp_path, model, scale=2):
    path = tmp_path / "foreign.onnx"
    onnx.save(model, path)
    return Network(path, scale, 64)


def test_a_network_that_enlarges_passes_the_probe(cpu, tmp_path):
    sound = network(tmp_path, wrap_uint8(core(), 2))
    probe(cpu.open(sound), sound)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e-30, 1e30, -1])
def test_weights_that_give_no_picture_are_refused(cpu, factor, tmp_path):
    broken = network(tmp_path, wrap_uint8(core(factor), 2))
    with pytest.raises(ModelError, match=r"foreign\.onnx does not give the picture that it takes"):
        probe(cpu.open(broken), broken)


def test_a_network_of_another_scale_is_refused(cpu, tmp_path):
    other = network(tmp_path, wrap_uint8(core(scale=3), 3), scale=2)
    with pytest.raises(ModelError, match=r"foreign\.onnx is not an upscaler of scale 2: .* \(1, 48, 48, 3\)"):
        probe(cpu.open(other), other)


def test_a_network_of_other_types_is_refused(cpu, tmp_path):
    foreign = network(tmp_path, core())
    with pytest.raises(ModelError, match=r"the model failed on a batch|is not an upscaler of scale 2"):
        probe(cpu.open(foreign), foreign)


def test_a_network_of_two_inputs_or_outputs_is_refused(cpu, tmp_path):
    model = wrap_uint8(core(), 2)
    model.graph.output.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, None))
    foreign = network(tmp_path, model)
    with pytest.raises(ModelError):
        probe(cpu.open(foreign), foreign)


@pytest.mark.parametrize(
    "result",
    [
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((1, 4, 5, 3), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        [[1]],
        None,
    ],
)
def test_a_result_of_another_type_or_shape_is_a_model_error(result):
    class Session:
        def run(self, _tiles):
            return result

    with pytest.raises(ModelError, match="is not an upscaler of scale 2"):
        run_checked(Session(), Network(Path("odd.onnx"), 2, 64), np.zeros((1, 2, 2, 3), np.uint8))


def test_a_run_beyond_all_memory_is_known_as_such(cpu, tmp_path):
    huge = network(tmp_path, wrap_uint8(core(scale=2**15), 2**15))
    with pytest.raises(DeviceOutOfMemoryError):
        cpu.open(huge).run(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "message",
    [
        "Non-zero status code returned while running Conv node. Name:'347' Status Message: bfc_arena.cc:376 "
        "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for "
        "requested buffer of size 939524096",
        "BFCArena::AllocateRawInternal Available memory of 1024 is smaller than requested bytes of 4096",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=cuda_allocator.cc ; line=47",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=1",
        "Check 'ptr' failed at cpu_memory.cpp:257: Failed to allocate 52776558133248 bytes of memory",
        "std::bad_alloc",
        "bad allocation",
    ],
)
def test_messages_about_memory_are_known(message):
    assert type(as_model_error(RuntimeError(message), "it failed")) is DeviceOutOfMemoryError


@pytest.mark.parametrize(
    "message",
    [
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h ; line=63",
        "CUDA failure 719: unspecified launch failure ; GPU=0",
        "CUDA failure 999: unknown error ; GPU=3",
        "CUDA failure 100: no CUDA-capable device is detected",
        "CUDA failure 214: uncorrectable ECC error encountered ; GPU=0",
        "CUDA error cudaErrorCudartUnloading: driver shutting down",
        "the device is lost",
    ],
)
def test_messages_about_lost_devices_are_known(message):
    assert type(as_model_error(RuntimeError(message), "it failed")) is DeviceLostError


@pytest.mark.parametrize(
    "message",
    [
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Unexpected input data type",
        "CUDA failure 1: invalid argument ; GPU=0",
        "CUDA failure 209: no kernel image is available for execution on the device",
        "",
    ],
)
def test_other_messages_are_errors_of_the_model_alone(message):
    assert type(as_model_error(RuntimeError(message), "it failed")) is ModelError


def test_errors_without_words_are_named():
    assert str(as_model_error(MemoryError(), "it failed")) == "it failed: MemoryError"
    assert type(as_model_error(MemoryError(), "it failed")) is DeviceOutOfMemoryError
