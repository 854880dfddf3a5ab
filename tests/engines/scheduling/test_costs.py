"""What networks cost, learnt from their runs."""

from engines.scheduling.costs import Paces


def test_nothing_is_known_of_a_network_that_has_not_run():
    paces = Paces()
    assert paces.seconds("new", 1000) is None
    assert 0 < paces.cost("new", 1000) < paces.cost("new", 2000)


def test_the_fastest_of_the_last_runs_counts():
    paces = Paces()
    for seconds in (5.0, 0.2, 0.1, 0.3):
        paces.learn("network", 1000, seconds)
    assert paces.seconds("network", 2000) == 0.2
    assert paces.cost("network", 2000) == 200_000_000


def test_a_pace_that_stays_slower_is_believed():
    paces = Paces()
    for seconds in (0.1, *[0.4] * 8):
        paces.learn("network", 1000, seconds)
    assert paces.seconds("network", 1000) == 0.4


def test_a_network_that_has_not_run_is_thought_to_be_like_the_others():
    paces = Paces()
    paces.learn("fast", 1000, 1e-6)
    paces.learn("slow", 1000, 3e-6)
    assert paces.cost("new", 1000) == 2000


def test_a_run_too_short_to_be_measured_costs_something():
    paces = Paces()
    paces.learn("network", 1000, 0.0)
    assert paces.cost("network", 1) == 1
