"""What tiles cost, learnt from runs."""

from engines.scheduling.costs import Costs


def test_nothing_is_known_of_a_network_that_has_not_run():
    costs = Costs()
    assert costs.seconds("new", 1000) is None
    assert 0 < costs.cost("new", 1000) < costs.cost("new", 2000)


def test_the_fastest_of_the_last_runs_counts():
    costs = Costs()
    for seconds in (5.0, 0.2, 0.1, 0.3):
        costs.learn("network", 1000, seconds)
    assert costs.seconds("network", 1000) == 0.1
    assert costs.cost("network", 1000) == 100_000_000


def test_a_pace_that_stays_slower_is_believed():
    costs = Costs()
    for seconds in (0.1, *[0.4] * 8):
        costs.learn("network", 1000, seconds)
    assert costs.seconds("network", 1000) == 0.4


def test_each_size_is_known_by_itself():
    costs = Costs()
    costs.learn("network", 500 * 500, 0.25)
    for _ in range(10):
        costs.learn("network", 1, 0.001)
    assert costs.seconds("network", 500 * 500) == 0.25
    assert costs.seconds("network", 1) == 0.001
    assert costs.seconds("network", 1000 * 1000) == 1  # by the best pace, not by that of one pixel


def test_a_network_that_has_not_run_is_thought_to_be_like_the_others():
    costs = Costs()
    costs.learn("fast", 1000, 1e-6)
    costs.learn("slow", 1000, 3e-6)
    assert costs.cost("new", 1000) == 2000


def test_a_run_too_short_to_be_measured_costs_something():
    costs = Costs()
    costs.learn("network", 1000, 0.0)
    assert costs.cost("network", 1) == 1
