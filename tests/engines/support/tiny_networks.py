"""Networks that are made for a test."""

from onnx import TensorProto, helper


def by_way_of(factor):
    """Repeats pixels twice, by way of values that are `factor` times as large; float NCHW."""
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Mul", ["large", "there"], ["huge"]),
        helper.make_node("Mul", ["huge", "back"], ["y"]),
    ]
    constants = [
        helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 2, 2]),
        helper.make_tensor("there", TensorProto.FLOAT, [], [factor]),
        helper.make_tensor("back", TensorProto.FLOAT, [], [1 / factor]),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, None, None])
    graph = helper.make_graph(nodes, "by_way_of", [image], [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
