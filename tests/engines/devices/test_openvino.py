"""The CPU by OpenVINO gives what ONNX Runtime gives. Skipped where it is not installed."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from engines import ModelError, find_devices
from engines.devices import find
from engines.devices import openvino as openvino_device
from engines.devices.openvino import OpenVinoDevice, find_openvino
from engines.devices.parts import Part
from tests.onnx_models.support.tiny_latent import FLOAT, INT64, graph

pytest.importorskip("openvino")

STATM = Path("/proc/self/statm")


@pytest.fixture(scope="module")
def session(small_network):
    return find_openvino(2, "fp32").open(small_network)


@pytest.fixture
def kept(small_network, tmp_path):
    """A network whose compiled form is kept, in a folder of its own, and that folder."""
    path = Path(shutil.copy(small_network.path, tmp_path / "network.onnx"))
    return replace(small_network, path=path, split=None), tmp_path / ".openvino"


def compiled(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*.blob")}


def test_a_network_is_compiled_once_and_again_if_what_is_kept_is_damaged(kept, session):
    network, folder = kept
    expected = session.run(noise(1, 16, 16))
    seen = []
    for damage in (None, None, b"", b"damaged"):
        if damage is not None:
            for file in compiled(folder):
                file.chmod(0o600)
                file.write_bytes(damage)
        assert np.array_equal(find_openvino(2, "fp32").open(network).run(noise(1, 16, 16)), expected)
        seen.append(compiled(folder))
    assert seen[0] == seen[1] != seen[2]
    assert len(seen[0]) == len(seen[3]) == 1


def test_what_another_version_has_compiled_is_removed_and_another_network_is_compiled_anew(kept):
    network, folder = kept
    old = folder / "2020.1" / "network-0" / "1.blob"
    old.parent.mkdir(parents=True)
    old.touch()
    find_openvino(2, "fp32").open(network)
    find_openvino(2, "fp32").open(replace(network, sha256="f" * 64))
    assert not old.exists()
    assert len(compiled(folder)) == 2


def test_where_nothing_can_be_kept_a_network_runs_all_the_same(kept, monkeypatch):
    network, folder = kept
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert find_openvino(2, "fp32").open(network).run(noise(1, 4, 4)).shape == (1, 8, 8, 3)
    assert not folder.exists()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_in_fp32_it_differs_from_onnx_runtime_by_one_level_at_most(session, small_network):
    tiles = noise(1, 40, 56)
    expected = find_devices("cpu", "onnxruntime")[0].open(small_network).run(tiles)
    assert np.abs(session.run(tiles).astype(int) - expected).max() <= 1


def test_a_tile_comes_out_the_same_in_whatever_batch_it_runs(session):
    tiles = noise(3, 24, 40)
    together = session.run(tiles)
    assert all(np.array_equal(session.run(tiles[i : i + 1])[0], together[i]) for i in range(3))


def test_a_result_stays_what_it_is_while_others_run(session):
    first = session.run(noise(1, 16, 16))
    kept = first.copy()
    session.run(255 - noise(1, 16, 16))
    assert np.array_equal(first, kept)


@pytest.mark.skipif(not STATM.exists(), reason="the system does not tell how much memory is used")
def test_pictures_of_ever_new_sizes_do_not_take_ever_more_memory(session):
    """By default 400 sizes of this small network take 170 MB, and it goes on like that."""

    def run_sizes(first, last):
        for number in range(first, last):
            session.run(np.zeros((1, 8 + number // 20, 8 + number % 20, 3), np.uint8))
        return int(STATM.read_text("utf-8").split()[1]) * 4096

    before = run_sizes(0, 200)
    assert run_sizes(200, 400) - before < 40e6


def test_what_it_cannot_take_is_a_model_error(session):
    with pytest.raises(ModelError, match=r"the model failed on a batch of \(1, 5, 7, 4\)"):
        session.run(np.zeros((1, 5, 7, 4), np.uint8))


@pytest.mark.parametrize("able", [["FP32", "BF16"], ["FP32"]])
def test_auto_is_bf16_exactly_where_the_processor_has_it(able, monkeypatch):
    class Core:
        def get_property(self, *_):
            return able

    monkeypatch.setattr(openvino_device, "import_openvino", lambda: type("openvino", (), {"Core": Core}))
    assert find_openvino(2).precision == ("bf16" if "BF16" in able else "fp32")
    assert find_openvino(2, "fp32").precision == "fp32"


def test_each_runtime_can_be_asked_for():
    names = [find_devices("cpu", runtime)[0].name for runtime in ("openvino", "onnxruntime")]
    assert ["OpenVINO" in name for name in names] == [True, False]


def test_without_openvino_auto_is_onnx_runtime_and_asking_for_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "ONNX Runtime" in find_devices("cpu")[0].name
    with pytest.raises(ModelError, match="pip install openvino"):
        find_devices("cpu", "openvino")


def test_an_openvino_that_cannot_be_used_is_passed_over(monkeypatch):
    def broken():
        raise ImportError("libtbb.so.12: cannot open shared object file")

    monkeypatch.setattr(openvino_device, "import_openvino", broken)
    monkeypatch.setattr(find, "has_ncnn", lambda: False)
    assert find_devices("cpu")[0].name.endswith("ONNX Runtime fp32")
    with pytest.raises(ModelError, match="OpenVINO cannot be used: libtbb"):
        find_devices("cpu", "openvino")


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """A convolution, and added to it how far the time is from one step of a training to the next."""
    random = np.random.default_rng(0)
    nodes = [
        ("Conv", "noisy weights", "seen", {"pads": [1, 1, 1, 1]}),
        ("Unsqueeze", "time last", "column"),
        ("LessOrEqual", "times column", "before"),
        ("Cast", "before", "ones", {"to": INT64}),
        ("ReduceSum", "ones last", "after", {"keepdims": 0}),
        ("Sub", "after one", "index"),
        ("Gather", "times index", "lower"),
        ("Gather", "times after", "upper"),
        ("Sub", "upper lower", "step"),
        ("Sub", "time lower", "distance"),
        ("Div", "distance step", "share"),
        ("Reshape", "share planes", "shares"),
        ("Add", "seen shares", "sum"),
        ("Conv", "sum weights", "given", {"pads": [1, 1, 1, 1]}),
    ]
    values = {
        "weights": random.random((4, 4, 3, 3), np.float32),
        "times": np.linspace(0.45, 0.65, 1000, dtype=np.float32),
        "one": np.int64(1),
        "last": np.array([1], np.int64),
        "planes": np.array([-1, 1, 1, 1], np.int64),
    }
    inputs = {"noisy": (FLOAT, ("n", 4, "h", "w")), "time": (FLOAT, ("n",))}
    file = tmp_path_factory.mktemp("part") / "unet.onnx"
    onnx.save(graph(nodes, inputs, ["given"], values), file)
    return Part(file, inexact=True)


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1e-3), ("bf16", 3e-2)])
def test_a_part_gives_what_onnx_runtime_gives_however_fine_the_time_is(part, precision, share):
    """In bf16 the time would be its neighbour, and the result a multiple of what it should be."""
    noisy = np.random.default_rng(1).standard_normal((1, 4, 16, 24)).astype(np.float32)
    inputs = noisy, np.array([0.4872], np.float32)
    (expected,) = find_devices("cpu", "onnxruntime")[0].open_part(part).run_part(inputs)
    session = OpenVinoDevice(2, precision).open_part(part)
    (first,) = session.run_part(inputs)
    session.release_memory()
    (again,) = session.run_part(inputs)
    assert np.abs(first - expected).max() < share * np.abs(expected).max()
    assert first.tobytes() == again.tobytes()
    with pytest.raises(ModelError, match=r"the model failed on a batch of \(1, 3, 16, 24\), \(1,\)"):
        session.run_part((noisy[:, :3], inputs[1]))


def test_a_part_that_must_be_exact_runs_by_onnx_runtime(part):
    noisy = np.random.default_rng(1).standard_normal((1, 4, 16, 24)).astype(np.float32)
    inputs = noisy, np.array([0.4872], np.float32)
    exact = replace(part, inexact=False)
    results = [
        device.open_part(exact).run_part(inputs)[0].tobytes()
        for device in (OpenVinoDevice(2, "bf16"), *find_devices("cpu"), *find_devices("cpu", "onnxruntime"))
    ]
    assert len(set(results)) == 1
