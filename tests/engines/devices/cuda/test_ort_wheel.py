"""What this code takes for granted of ONNX Runtime's GPU build, read off the wheel that is installed.

Nothing here needs a GPU. A test that fails after an upgrade names what to look at again.
"""

import mmap
import struct

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from engines.devices.cuda.device import CudaDevice
from engines.devices.cuda.find import ARCHITECTURES, probe_network
from engines.devices.cuda.half import halved
from engines.devices.sessions import Network
from onnx_models import load_catalogue
from tests.engines.support import ort_wheel

FATBIN, IMAGE = b"\x50\xed\x55\xba", struct.Struct("<HHIQ")  # an image's kind, version, header and size
PTX, ELF = 1, 2
TYPES = {kind: f"tensor({name.lower()})" for name, kind in TensorProto.DataType.items()}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    found = {}
    for operator, domain, first, last, types in ort_wheel.cuda_kernels(tmp_path_factory.mktemp("stubs")):
        found.setdefault((operator, domain), []).append((first, last, types))
    return found


@pytest.fixture(scope="module")
def library():
    ort_wheel.skip_without_tools()
    with ort_wheel.CUDA.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def without_kernel(content, kernels):
    """The nodes that the CUDA provider would leave to the CPU: operator, version and types."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    graph, (opset,) = model.graph, (each.version for each in model.opset_import if not each.domain)
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in graph.output}
    kinds |= {constant.name: constant.data_type for constant in graph.initializer}
    for node in graph.node:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        types = {}
        for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
            for index, name in enumerate(names):
                if name:
                    types[formals[min(index, len(formals) - 1)].type_str] = TYPES[kinds[name]]
        version = schema.since_version
        if not any(
            first <= version <= last
            and all(types[name] in allowed for name, allowed in constraints.items() if name in types)
            for first, last, constraints in kernels.get((node.op_type, node.domain), ())
        ):
            yield node.op_type, version, types


@pytest.mark.parametrize(
    "model", [each for each in load_catalogue() if each.latent is None], ids=lambda model: model.name
)
def test_every_node_of_a_network_in_half_precision_has_a_kernel(model, kernels, model_directory):
    for weights in model.weights:
        network = Network.build(model, weights, model_directory)
        assert not list(without_kernel(halved(network.path), kernels))


def test_every_node_of_the_probe_has_a_kernel_and_one_that_there_is_none_for_would_be_seen(kernels):
    assert not list(without_kernel(probe_network(), kernels))
    graph = helper.make_graph(
        [helper.make_node("Det", ["x"], ["y"])],
        "none",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert list(without_kernel(model.SerializeToString(), kernels)) == [("Det", 11, {"T": "tensor(float16)"})]


def test_convolutions_with_channels_last_have_a_kernel_for_half_precision(kernels):
    kinds = {
        kind
        for first, last, types in kernels["Conv", "com.ms.internal.nhwc"]
        if first <= 11 <= last
        for kind in types["T"]
    }
    assert kinds == {"tensor(float)", "tensor(float16)"}, "bf16 would be worth a look"


def test_the_provider_needs_the_libraries_that_are_named_when_they_are_missing():
    ort_wheel.skip_without_tools()
    assert ort_wheel.nvidia_libraries(ort_wheel.CUDA) == [
        "libcublas.so.13",
        "libcublasLt.so.13",
        "libcuda.so.1",
        "libcudart.so.13",
        "libcurand.so.10",
    ], "without cuDNN, which is loaded when it is first used"


def test_the_code_is_for_the_architectures_that_are_named_and_there_is_none_to_compile(library):
    images, at = set(), 0
    while (at := library.find(FATBIN, at)) >= 0:
        version, header, size = struct.unpack_from("<HHQ", library, at + 4)
        if (version, header) != (1, 16):
            at += 4
            continue
        image, at = at + header, at + header + size
        while image + 64 <= at:
            kind, _, head, payload = IMAGE.unpack_from(library, image)
            images.add((kind, struct.unpack_from("<I", library, image + 28)[0]))
            image += head + payload
    assert {kind for kind, _ in images} == {ELF}
    assert {divmod(architecture, 10) for _, architecture in images} == set(ARCHITECTURES)


@pytest.mark.parametrize("precision", ["half_precision", "_full_precision"])
def test_the_provider_knows_all_options_that_it_is_given(precision, library):
    for option in (*getattr(CudaDevice(0, "H200"), precision)(), "enable_cuda_graph"):
        assert library.find(b"\0" + option.encode() + b"\0") >= 0, option


def test_a_session_can_be_asked_to_release_a_graph():
    assert callable(onnxruntime.InferenceSession.release_captured_graph)


def test_a_value_with_too_many_elements_is_refused_in_the_words_that_are_known(library):
    assert library.find(b"output element count exceeds int range") >= 0
