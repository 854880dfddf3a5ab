from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_models import NcnnFormatError, ncnn
from onnx_models.ncnn_file import Layer, parse_param

GOOD = """7767517
3 4
Input                    in      0 1 data
Split                    split   1 2 data a b
Eltwise                  sum     2 1 a b out 0=1 -23301=2,2.000000e-01,1.000000e+00
"""


def test_a_param_file_gives_its_layers_in_order():
    assert parse_param(GOOD.encode()) == [
        Layer("Input", "in", (), ("data",), {}),
        Layer("Split", "split", ("data",), ("a", "b"), {}),
        Layer("Eltwise", "sum", ("a", "b"), ("out",), {0: (1.0,), 1: (0.2, 1.0)}),
    ]


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        ("7767517", "7767516", "does not begin with 7767517"),
        (GOOD, "", "does not begin with 7767517"),
        ("3 4", "4 4", "announces 4 layers and has 3"),
        ("1 2 data a b", "1 3 data a b", "malformed line: Split split 1 3"),
        ("0 1 data", "0 0", "malformed line: Input"),
        ("0 1 data", "1 0 data", "malformed line: Input"),
        ("0 1 data", "-1 2 data", "malformed line: Input"),
        ("0 1 data", "", "malformed line: Input"),
        ("0=1", "0=one", "malformed line: Eltwise"),
        ("0=1", "0=inf", "malformed line: Eltwise"),
        ("0=1", "0", "malformed line: Eltwise"),
        ("=2,2", "=3,2", "malformed line: Eltwise"),
    ],
)
def test_a_malformed_param_file_is_refused_with_the_line(good, bad, complaint):
    assert good in GOOD
    with pytest.raises(NcnnFormatError, match=complaint):
        parse_param(GOOD.replace(good, bad, 1).encode())


@given(st.data())
def test_damage_to_a_network_is_only_ever_answered_with_the_named_error(data):
    content = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position : position + 1] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b" ", b"\n", b"9"])
        )
    with suppress(NcnnFormatError):
        ncnn.convert(bytes(content), b"")
