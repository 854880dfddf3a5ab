"""Which shapes get a graph, and that nobody else uses CUDA while one is captured."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.devices.cuda import graphs as cuda_graphs
from engines.devices.cuda.graphs import NO_GRAPH, CaptureGate, GraphPlan

SQUARE, WIDE = (1, 8, 8, 3), (1, 8, 9, 3)
WAIT = 10


def run(plan, shape):
    """What a session does: the graph that it ran with, captured or replayed."""
    graph = plan.graph_for(shape)
    if graph != NO_GRAPH and not plan.has(shape):
        plan.captured(shape)
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
@given(st.lists(st.integers(1, 20), max_size=200))
def test_graphs_are_few_each_has_one_shape_and_the_last_used_ones_stay(sides):
    plan, shapes, used = GraphPlan(most=4), {}, []
    for side in sides:
        shape = (1, side, side, 3)
        graph = plan.graph_for(shape)
        if graph == NO_GRAPH:
            continue
        assert shapes.setdefault(graph, shape) == shape
        used = [shape, *(each for each in used if each != shape)]
        if not plan.has(shape):
            released = plan.captured(shape)
            assert (released is None) == (len(used) <= 4)
            if released is not None:
                assert shapes[released] == used.pop()
        assert all(plan.has(each) for each in used)
    assert set(shapes) == set(range(1, len(shapes) + 1))


def test_a_plan_that_made_many_graphs_is_worn_and_makes_no_more(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_CAPTURES", 1)
    plan = GraphPlan()
    assert [run(plan, SQUARE) for _ in range(4)] == [NO_GRAPH, NO_GRAPH, 1, 1]
    assert plan.is_worn
    assert [run(plan, WIDE) for _ in range(4)] == [NO_GRAPH] * 4
    assert run(plan, SQUARE) == 1


def test_what_is_to_be_freed_later_is_freed_by_whoever_uses_cuda_next(caplog):
    gate, freed = CaptureGate(), []
    with gate.use(capture=True):
        gate.free_later(lambda: freed.append(1))
        gate.free_later(lambda: 1 / 0)
        gate.free_later(lambda: freed.append(2))
    assert not freed
    with gate.use():
        assert freed == [1, 2]
    assert "memory of a GPU could not be freed" in caplog.text


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
