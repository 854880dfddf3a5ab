"""How networks run on a GPU, with ONNX Runtime's CPU provider in its place.

A session that replays a graph uses the addresses that were bound when it was captured, and so does the one
here: a run of another shape must not change them.
"""

import logging
import threading

import numpy as np
import pytest

from engines import DeviceLostError, DeviceOutOfMemoryError, ModelError, find_devices
from engines.devices.cuda.graphs import CaptureGate
from engines.devices.cuda.session import CudaSession
from engines.devices.runtimes import inference_session
from tests.engines.support.fake_gpu import FakeGpuMemory


class GraphSession:
    """A session that keeps graphs as ONNX Runtime does: for each id what was bound at its first run.

    Attributes:
        runs: the graph of each run.
        failures: what the runs that capture raise, if anything.
        stale: whether graphs give for ever what they gave when they were captured.
    """

    def __init__(self, path, failures=(), stale=False):
        self.session = inference_session(path, 1, ("CPUExecutionProvider", {}))
        self.graphs, self.runs, self.failures, self.stale = {}, [], list(failures), stale

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run_with_iobinding(self, binding, options):
        graph = int(options.get_run_config_entry("gpu_graph_id"))
        self.runs.append(graph)
        if graph in self.graphs and self.stale:
            return
        if graph not in (-1, *self.graphs):
            if self.failures:
                raise self.failures.pop()
            self.graphs[graph] = binding
        self.session.run_with_iobinding(self.graphs.get(graph, binding), options)


@pytest.fixture
def memory():
    return FakeGpuMemory()


@pytest.fixture
def gate():
    return CaptureGate()


@pytest.fixture
def opened():
    """What was opened, the newest last."""
    return []


@pytest.fixture
def session_of(small_network, memory, gate, opened):
    def make(*failures, graphs=True, unable=None, stale=False):
        def open_session(able):
            if able and unable is not None:
                raise unable
            opened.append(GraphSession(small_network.path, failures, stale))
            return opened[-1]

        return CudaSession(
            "small.onnx on the fake",
            open_session,
            scale=small_network.scale,
            memory=memory,
            index=0,
            gate=gate,
            graphs=graphs,
            device_type="cpu",
        )

    return make


@pytest.fixture(scope="module")
def reference(small_network):
    return find_devices("cpu", "onnxruntime")[0].open(small_network)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def test_each_run_gives_what_the_network_gives_with_graphs_and_without(session_of, reference, opened):
    session = session_of()
    for seed, shape in enumerate([(1, 8, 9), (1, 12, 7), (1, 8, 9), (1, 8, 9), (1, 12, 7), (1, 8, 9)] * 2):
        tiles = noise(*shape, seed=seed)
        assert np.array_equal(session.run(tiles), reference.run(tiles))
    assert opened[0].runs == [-1, -1, -1, 1, -1, 1, 1, 2, 1, 1, 2, 1]


def test_batches_run_in_powers_of_two_so_that_there_are_few_shapes(
    session_of, reference, opened, monkeypatch
):
    session = session_of()
    tiles = noise(7, 6, 5)
    upscaled = session.run(tiles)
    assert np.array_equal(upscaled, np.concatenate([reference.run(tile[np.newaxis]) for tile in tiles]))
    assert len(opened[0].runs) == 3


def test_a_result_stays_what_it_is_while_others_run(session_of):
    session = session_of()
    results = [session.run(noise(1, 8, 8, seed=seed)) for seed in range(6)]
    again = [session.run(noise(1, 8, 8, seed=seed)) for seed in range(6)]
    assert all(np.array_equal(a, b) for a, b in zip(results, again, strict=True))


def test_memory_is_reused(session_of, memory):
    session = session_of()
    for _ in range(8):
        session.run(noise(2, 8, 8))
        session.run(noise(1, 4, 4))
    assert len(memory.pieces) == 2
    assert len(memory.pinned) <= 3


def test_a_larger_shape_leaves_the_graphs_of_smaller_ones_alone(session_of, reference):
    session = session_of()
    session.warm_up([6])
    session.run(noise(4, 16, 16))
    for seed in range(3):
        tiles = noise(1, 6, 6, seed=seed)
        assert np.array_equal(session.run(tiles), reference.run(tiles))


def test_warming_up_captures_the_graphs(session_of, opened):
    session = session_of()
    session.warm_up([8, 12])
    session.run(noise(1, 12, 12)), session.run(noise(1, 8, 8))
    assert opened[0].runs == [-1, -1, 1, 1, -1, -1, 2, 2, 2, 1]


def test_graphs_that_give_wrong_pictures_are_found_out(session_of, reference, opened, caplog):
    session = session_of(stale=True)
    with caplog.at_level("INFO"):
        session.warm_up([8])
    assert "runs without CUDA graphs: they are wrong by" in caplog.text
    tiles = noise(1, 8, 8)
    assert np.array_equal(session.run(tiles), reference.run(tiles))
    assert opened[-1].runs == [-1]


def test_warming_up_leaves_out_what_there_is_no_memory_for(session_of, memory):
    session = session_of()
    memory.size = 20_000
    session.warm_up([16, 1024, 16])
    session.run(noise(1, 16, 16))


def test_a_graph_that_cannot_be_captured_means_plain_runs_from_then_on(session_of, reference, opened, caplog):
    caplog.set_level(logging.INFO)
    session = session_of(RuntimeError("CUDA failure 900: operation not permitted when stream is capturing"))
    for seed in range(6):
        tiles = noise(1, 8, 8, seed=seed)
        assert np.array_equal(session.run(tiles), reference.run(tiles))
    assert [each.runs for each in opened] == [[-1, -1, 1], [-1] * 4]
    assert [record.message for record in caplog.records] == [
        "small.onnx on the fake runs without CUDA graphs: "
        "CUDA failure 900: operation not permitted when stream is capturing"
    ]


def test_a_network_that_cannot_have_graphs_is_opened_without(session_of, reference, opened, caplog):
    caplog.set_level(logging.INFO)
    session = session_of(unable=ModelError("not all nodes have been assigned to CUDA"))
    for _ in range(4):
        assert np.array_equal(session.run(noise(1, 8, 8)), reference.run(noise(1, 8, 8)))
    assert opened[0].runs == [-1] * 4
    assert "runs without CUDA graphs: not all nodes have been assigned to CUDA" in caplog.text


def test_where_graphs_go_wrong_none_is_captured(session_of, opened):
    session = session_of(graphs=False)
    session.warm_up([8])
    for _ in range(3):
        session.run(noise(1, 8, 8))
    assert opened[0].runs == [-1] * 4


def test_a_device_that_is_lost_during_a_capture_is_lost(session_of, opened):
    session = session_of(RuntimeError("CUDA failure 700: an illegal memory access was encountered"))
    with pytest.raises(DeviceLostError, match=r"the model failed on a batch of \(1, 8, 8, 3\)"):
        session.warm_up([8])
    assert len(opened) == 1


def test_a_graph_is_not_captured_while_another_gpu_is_at_work(session_of, gate, opened):
    session = session_of()
    used, go = threading.Event(), threading.Event()

    def other():
        with gate.use():
            used.set()
            assert go.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert used.wait(10)
    session.warm_up([8])
    go.set()
    thread.join(10)
    assert opened[0].runs == [-1] * 4
    session.run(noise(1, 8, 8))
    assert opened[0].runs[4:] == [1]


def test_too_little_memory_is_known_as_such_and_a_smaller_batch_runs(session_of, memory):
    session = session_of()
    memory.size = 40_000
    with pytest.raises(DeviceOutOfMemoryError):
        session.run(noise(16, 64, 64))
    assert session.run(noise(1, 32, 32)).shape == (1, 64, 64, 3)


def test_what_the_network_cannot_take_is_a_model_error(session_of):
    with pytest.raises(ModelError, match=r"the model failed on a batch of \(1, 5, 7, 4\)"):
        session_of().run(np.zeros((1, 5, 7, 4), np.uint8))
