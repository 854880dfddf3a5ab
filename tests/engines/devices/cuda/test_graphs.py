"""Which shapes get a graph, and that nobody else uses CUDA while one is captured."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.devices.cuda import graphs as cuda_graphs
from engines.devices.cuda.graphs import NO_GRAPH, RUNS_UNTIL_GRAPH, CaptureGate, GraphPlan

SQUARE, WIDE = (1, 8, 8, 3), (1, 8, 9, 3)
WAIT = 10


def run(plan, shape):
    """What a session does: the graph that it ran with, captured or replayed."""
    graph = plan.graph_for(shape)
    if graph != NO_GRAPH and not plan.has(shape):
        plan.captured(shape, graph)
    return graph


def test_a_shape_has_a_graph_from_its_third_run_on():
    plan = GraphPlan()
    assert [run(plan, SQUARE) for _ in range(5)] == [NO_GRAPH, NO_GRAPH, 1, 1, 1]
    assert [run(plan, WIDE) for _ in range(3)] == [NO_GRAPH, NO_GRAPH, 2]
    assert run(plan, SQUARE) == 1


def test_a_graph_that_could_not_be_captured_is_tried_again_with_the_next_run():
    plan = GraphPlan()
    assert [plan.graph_for(SQUARE) for _ in range(4)] == [NO_GRAPH, NO_GRAPH, 1, 1]
    assert not plan.has(SQUARE)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 20), max_size=200))
def test_graphs_are_few_and_each_has_one_shape(sides):
    plan, graphs = GraphPlan(most=4), {}
    for side in sides:
        graph = run(plan, (1, side, side, 3))
        if graph != NO_GRAPH:
            assert graphs.setdefault(graph, side) == side
    assert set(graphs) == set(range(1, len(graphs) + 1))
    assert len(graphs) <= 4
    assert len(graphs) == min(4, sum(sides.count(side) >= RUNS_UNTIL_GRAPH for side in set(sides)))


def test_shapes_that_come_once_are_not_remembered_for_ever(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_REMEMBERED", 2)
    plan = GraphPlan()
    run(plan, SQUARE), run(plan, SQUARE)
    for side in (1, 2):
        run(plan, (1, side, side, 3))
    assert run(plan, SQUARE) == NO_GRAPH


def test_a_graph_is_captured_only_while_nobody_else_uses_cuda():
    gate = CaptureGate()
    with gate.use(capture=True) as alone:
        assert alone
    with gate.use(), gate.use(capture=True) as alone:
        assert not alone


def test_whoever_wants_to_use_cuda_during_a_capture_waits_for_its_end():
    gate, told, used = CaptureGate(), [], threading.Event()

    def use():
        with gate.use() as alone:
            told.append((alone, captured))
            used.set()

    captured = False
    with gate.use(capture=True):
        thread = threading.Thread(target=use)
        thread.start()
        assert not used.is_set()
        captured = True
    assert used.wait(WAIT)
    thread.join(WAIT)
    assert told == [(False, True)]


def test_a_capture_that_does_not_end_holds_up_nobody_for_ever(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_CAPTURE_SECONDS", 0.01)
    gate, used = CaptureGate(), threading.Event()

    def use():
        with gate.use():
            pass
        monkeypatch.setattr(cuda_graphs, "_CAPTURE_SECONDS", 3600)
        with gate.use():
            used.set()

    with gate.use(capture=True):
        thread = threading.Thread(target=use)
        thread.start()
        assert used.wait(WAIT)
    thread.join(WAIT)


def raise_it():
    raise ZeroDivisionError


def test_a_run_that_fails_leaves_the_gate_open():
    gate = CaptureGate()
    for capture in (True, False):
        with pytest.raises(ZeroDivisionError), gate.use(capture=capture):
            raise_it()
    with gate.use(capture=True) as alone:
        assert alone
