"""How networks run on a GPU, with ONNX Runtime's CPU provider in its place.

A session that replays a graph uses the addresses that were bound when it was captured, and so does the one
here: a run of another shape must not change them.
"""

import gc
import logging
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import DeviceLostError, DeviceOutOfMemoryError, ModelError, find_devices
from engines.devices.cuda import graphs
from engines.devices.cuda.graphs import GraphPlan
from engines.devices.cuda.session import CudaSession, parts_of
from engines.devices.runtimes import inference_session
from tests.engines.support.fake_gpu import FakeGpuMemory, RecordingGate


class GraphSession:
    """A session that keeps graphs as ONNX Runtime does: for each id what was bound at its first run.

    Attributes:
        runs: the graph of each run.
        failures: what the runs that capture raise, if anything.
        stale: whether graphs give for ever what they gave when they were captured.
        released: the graphs that were given up.
        shrunk: the arenas that were to shrink, and how many runs there had been.
    """

    def __init__(self, path, gate, failures=(), stale=False):
        self.session = inference_session(path, 1, ("CPUExecutionProvider", {}))
        self.graphs, self.runs, self.failures, self.stale = {}, [], list(failures), stale
        self.gate, self.released, self.shrunk = gate, [], []

    def __getattr__(self, name):
        return getattr(self.session, name)

    def __del__(self):
        self.gate.ended.append(self.gate.allows_freeing)

    def release_captured_graph(self, graph):
        assert self.gate.allows_freeing
        del self.graphs[graph]
        self.released.append(graph)

    def run_with_iobinding(self, binding, options):
        graph = int(options.get_run_config_entry("gpu_graph_id"))
        if options.terminate:
            arenas = options.get_run_config_entry("memory.enable_memory_arena_shrinkage")
            self.shrunk.append((arenas, len(self.runs)))
            self.session.run_with_iobinding(binding, options)
        self.runs.append(graph)
        if graph in self.graphs and self.stale:
            return
        self.gate.recording = graph not in (-1, *self.graphs)
        try:
            if self.gate.recording:
                gc.collect()
                if self.failures:
                    raise self.failures.pop()
                self.graphs[graph] = binding
            self.session.run_with_iobinding(self.graphs.get(graph, binding), options)
        finally:
            self.gate.recording = False


@pytest.fixture
def memory(gate):
    return FakeGpuMemory(gate=gate)


@pytest.fixture
def gate():
    return RecordingGate()


@pytest.fixture
def opened():
    """What was opened, the newest last."""
    return []


@pytest.fixture
def session_of(small_network, memory, gate, opened):
    def make(*failures, graphs=True, unable=None, stale=False, most_pixels=10**6, sides=(), warm=True):
        def open_session(able):
            if able and unable is not None:
                raise unable
            opened.append(GraphSession(small_network.path, gate, failures, stale))
            return opened[-1]

        session = CudaSession(
            "small.onnx on the fake",
            open_session,
            scale=small_network.scale,
            memory=memory,
            index=0,
            gate=gate,
            most_pixels=most_pixels,
            warm_sides=sides,
            graphs=graphs,
            device_type="cpu",
        )
        if warm:
            session.warm_up()
        return session

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


def test_batches_run_in_powers_of_four_so_that_there_are_few_shapes(session_of, reference, opened):
    tiles = noise(7, 6, 5)
    upscaled = session_of().run(tiles)
    assert np.array_equal(upscaled, np.concatenate([reference.run(tile[np.newaxis]) for tile in tiles]))
    assert len(opened[0].runs) == 4


@given(st.integers(1, 200), st.integers(1, 40))
def test_parts_cover_a_batch_in_order_and_are_as_large_as_they_may_be(count, most):
    parts = [range(count)[part] for part in parts_of(count, most)]
    assert [tile for part in parts for tile in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert set(sizes) <= {1, 4, 16, 64}
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= min(count, most) < 4 * sizes[0]


def test_no_run_takes_more_pixels_than_it_may(session_of, reference, opened):
    session = session_of(most_pixels=4 * 6 * 5)
    tiles = noise(9, 6, 5)
    assert np.array_equal(session.run(tiles), reference.run(tiles))
    assert len(opened[0].runs) == 3
    with pytest.raises(DeviceOutOfMemoryError, match=r"a tile of 12 × 11 pixels is too large"):
        session.run(noise(1, 12, 11))


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
    session = session_of(sides=[6])
    session.run(noise(4, 16, 16))
    for seed in range(3):
        tiles = noise(1, 6, 6, seed=seed)
        assert np.array_equal(session.run(tiles), reference.run(tiles))


def test_warming_up_captures_the_graphs(session_of, opened):
    session = session_of(sides=[8, 12])
    session.run(noise(1, 12, 12)), session.run(noise(1, 8, 8))
    assert opened[0].runs == [-1, -1, 1, 1, -1, -1, 2, 2, 2, 1]


def test_trial_runs_capture_no_graphs_and_what_they_took_of_memory_is_given_back(session_of, opened, memory):
    session = session_of(sides=[8], warm=False)
    for _ in range(5):
        session.run(noise(4, 32, 32))
    assert opened[0].runs == [-1] * 5
    taken = sum(map(len, memory.pieces.values()))
    session.warm_up()
    assert opened[0].shrunk == [("cpu:0", 5)]
    assert sum(map(len, memory.pieces.values())) < taken / 10
    assert opened[0].runs[5:] == [-1, -1, 1, 1]


def test_graphs_that_give_wrong_pictures_are_found_out(session_of, reference, opened, caplog):
    with caplog.at_level("INFO"):
        session = session_of(stale=True, sides=[8])
    assert "runs without CUDA graphs: they are wrong by" in caplog.text
    tiles = noise(1, 8, 8)
    assert np.array_equal(session.run(tiles), reference.run(tiles))
    assert opened[-1].runs == [-1]


def test_warming_up_leaves_out_what_there_is_no_memory_for(session_of, memory):
    session = session_of(sides=[16, 1024, 16], warm=False)
    memory.size = 20_000
    session.warm_up()
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


OUT_OF_MEMORY = "Available memory of 5 is smaller than requested bytes of 8"


def test_without_memory_for_a_graph_the_run_is_a_plain_one_and_smaller_shapes_have_theirs(
    session_of, reference, opened, caplog
):
    caplog.set_level(logging.INFO)
    session = session_of(RuntimeError(OUT_OF_MEMORY), sides=[8])
    for seed in range(5):
        for side in (16, 8, 12):
            tiles = noise(1, side, side, seed=seed)
            assert np.array_equal(session.run(tiles), reference.run(tiles))
    assert len(opened) == 1
    # the first capture, of side 8, fails; so shapes as large have none, and no number is given twice
    assert set(opened[0].runs) == {-1, 1}
    for _ in range(4):
        session.run(noise(1, 4, 4))
    assert opened[0].runs[-2:] == [2, 2]
    assert "has no memory for a graph of (1, 8, 8, 3): " + OUT_OF_MEMORY in caplog.text


def test_without_memory_for_the_plain_run_either_the_batch_is_too_large_and_graphs_stay(
    session_of, opened, memory
):
    session = session_of(RuntimeError(OUT_OF_MEMORY), warm=False)
    session.warm_up()
    session.run(noise(1, 8, 8)), session.run(noise(1, 8, 8))
    opened[0].failures *= 2
    plain = opened[0].session

    class Full:
        def __getattr__(self, name):
            return getattr(plain, name)

        def run_with_iobinding(self, *_):
            raise RuntimeError(OUT_OF_MEMORY)

    opened[0].session = Full()
    with pytest.raises(DeviceOutOfMemoryError):
        session.run(noise(1, 8, 8))
    opened[0].session, opened[0].failures = plain, []
    for _ in range(4):
        session.run(noise(1, 4, 4))
    assert opened[0].runs[-2:] == [2, 2]
    assert len(opened) == 1


def test_the_graph_that_was_not_used_for_longest_makes_room(session_of, reference, opened, monkeypatch):
    monkeypatch.setattr(GraphPlan.__init__, "__defaults__", (2,))
    session = session_of()
    for side in (4, 5, 4, 6, 4, 5):
        for seed in range(4):
            tiles = noise(1, side, side, seed=seed)
            assert np.array_equal(session.run(tiles), reference.run(tiles))
    assert opened[0].released == [2, 3]
    assert sorted(opened[0].graphs) == [1, 4]


def test_after_many_captures_the_network_is_opened_anew(session_of, reference, opened, monkeypatch):
    monkeypatch.setattr(graphs, "_CAPTURES", 2)
    session = session_of()
    for side in (4, 5, 6):
        for seed in range(4):
            tiles = noise(1, side, side, seed=seed)
            assert np.array_equal(session.run(tiles), reference.run(tiles))
    assert [each.runs for each in opened] == [[-1, -1, 1, 1, -1, -1, 2], [-1, -1, -1, 1, 1]]


def test_where_it_cannot_be_opened_anew_it_goes_on_without_further_graphs(
    session_of, reference, opened, monkeypatch
):
    monkeypatch.setattr(graphs, "_CAPTURES", 1)

    def fail(_graphs):
        raise ModelError("no memory")

    session = session_of()
    monkeypatch.setattr(session, "_open", fail)
    for side in (4, 5):
        for seed in range(4):
            tiles = noise(1, side, side, seed=seed)
            assert np.array_equal(session.run(tiles), reference.run(tiles))
    assert [each.runs for each in opened] == [[-1, -1, 1, 1, -1, -1, -1, -1]]


def test_memory_is_freed_within_the_gate_and_not_during_a_capture(session_of, gate, memory, opened):
    """Whatever goes while another GPU captures: sessions, buffers, results."""
    other, dropped = session_of(), session_of()
    dropped.run(noise(2, 16, 16))
    dropped.loop = dropped  # so that it goes when the collector comes, as it does during the capture
    del dropped, opened[1]
    for _ in range(3):
        other.run(noise(1, 8, 8))
    assert opened[0].runs == [-1, -1, 1]
    assert not gate.ended
    pieces = len(memory.pieces)
    other.run(noise(1, 8, 8))
    assert gate.ended == [True]
    assert len(memory.pieces) == pieces - 2


def test_a_session_that_is_closed_gives_everything_back(session_of, memory, gate, opened):
    session = session_of(sides=[8])
    opened.clear()
    session.close()
    assert gate.ended == [True]
    assert not memory.pieces


def test_a_network_that_cannot_have_graphs_is_opened_without(session_of, reference, opened, caplog):
    caplog.set_level(logging.INFO)
    session = session_of(unable=ModelError("not all nodes have been assigned to CUDA"))
    for _ in range(4):
        assert np.array_equal(session.run(noise(1, 8, 8)), reference.run(noise(1, 8, 8)))
    assert opened[0].runs == [-1] * 4
    assert "runs without CUDA graphs: not all nodes have been assigned to CUDA" in caplog.text


def test_where_graphs_go_wrong_none_is_captured(session_of, opened):
    session = session_of(graphs=False, sides=[8])
    for _ in range(3):
        session.run(noise(1, 8, 8))
    assert opened[0].runs == [-1] * 4


def test_a_device_that_is_lost_during_a_capture_is_lost(session_of, opened):
    lost = RuntimeError("CUDA failure 700: an illegal memory access was encountered")
    with pytest.raises(DeviceLostError, match=r"the model failed on a batch of \(1, 8, 8, 3\)"):
        session_of(lost, sides=[8])
    assert len(opened) == 1


def test_a_graph_is_not_captured_while_another_gpu_is_at_work(session_of, gate, opened):
    session = session_of(sides=[8], warm=False)
    used, go = threading.Event(), threading.Event()

    def other():
        with gate.use():
            used.set()
            assert go.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert used.wait(10)
    session.warm_up()
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
