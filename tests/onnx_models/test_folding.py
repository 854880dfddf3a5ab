"""Factors behind convolutions go into their weights, and the network stays what it was."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.devices.ort import OrtSession
from engines.devices.runtimes import inference_session
from onnx_models import ncnn, ncnn_files
from onnx_models.folding import fold_factors

RANDOM = np.random.default_rng(0)


def network(*nodes, result="y", **constants):
    """Of nodes from `x`, (N, 3, H, W), to a value."""
    tensors = [
        numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("x", result)
    ]
    graph = helper.make_graph(nodes, "folding", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def conv(*inputs, to):
    return helper.make_node("Conv", inputs, [to], pads=[1] * 4)


def node(operator, *inputs, to):
    return helper.make_node(operator, inputs, [to])


def operators(model):
    return [each.op_type for each in model.graph.node]


def results(model, images):
    session = OrtSession(inference_session(model.SerializeToString(), 1, ("CPUExecutionProvider", {})))
    return session.run(images)


WEIGHTS, BIAS = RANDOM.normal(0, 0.2, (3, 3, 3, 3)), RANDOM.normal(0, 0.2, 3)


@pytest.mark.parametrize("factor", [0.2, [0.2], [[[0.2]]]])
@pytest.mark.parametrize("inputs", [("value", "factor"), ("factor", "value")])
@pytest.mark.parametrize("bias", [(), ("bias",)])
def test_a_factor_goes_into_the_weights_and_the_bias(factor, inputs, bias):
    nodes = conv("x", "weights", *bias, to="value"), node("Mul", *inputs, to="y")
    model = network(*nodes, weights=WEIGHTS, bias=BIAS, factor=factor)
    image = RANDOM.random((2, 3, 7, 5), np.float32)
    expected = results(model, image)
    fold_factors(model)
    onnx.checker.check_model(model)
    assert operators(model) == ["Conv"]
    assert "factor" not in {tensor.name for tensor in model.graph.initializer}
    assert np.abs(results(model, image) - expected).max() < 1e-6


@pytest.mark.parametrize(
    "nodes",
    [
        (conv("x", "weights", to="v"), node("Mul", "v", "factor", to="p"), node("Add", "p", "v", to="y")),
        (
            conv("x", "weights", to="v"),
            conv("x", "weights", to="other"),
            node("Mul", "v", "factor", to="p"),
            node("Add", "p", "other", to="y"),
        ),
        (conv("x", "weights", to="v"), node("Mul", "v", "each", to="y")),
        (conv("x", "weights", to="v"), node("Mul", "v", "x", to="y")),
        (node("Relu", "x", to="v"), node("Mul", "v", "factor", to="y")),
    ],
    ids=["result read twice", "weights read twice", "many numbers", "no constant", "no convolution"],
)
def test_where_something_else_depends_on_it_all_stays_as_it_is(nodes):
    model = network(*nodes, weights=WEIGHTS, factor=0.2, each=RANDOM.random((3, 1, 1)))
    before = model.SerializeToString()
    fold_factors(model)
    assert model.SerializeToString() == before


def test_a_result_that_is_an_output_stays():
    model = network(
        conv("x", "weights", to="y"), node("Mul", "y", "factor", to="z"), weights=WEIGHTS, factor=0.2
    )
    fold_factors(model)
    assert operators(model) == ["Conv", "Mul"]


def test_the_dense_blocks_of_an_esrgan_lose_their_factors_and_pictures_stay_the_same(catalogue):
    weights = catalogue.get("realesrgan-x4plus-anime").weights[0]
    plain, folded = (ncnn.convert(*(file.read_bytes() for file in ncnn_files(weights))) for _ in range(2))
    fold_factors(folded)
    counts = [Counter(operators(model)) for model in (plain, folded)]
    assert counts[0] - counts[1] == {"Mul": 18}
    assert counts[1]["Mul"] == 6, "of whole blocks, which end in a sum"
    image = RANDOM.random((1, 3, 20, 24), np.float32)
    assert np.abs(results(plain, image) - results(folded, image)).max() < 1e-4
