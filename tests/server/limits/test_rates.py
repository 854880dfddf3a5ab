"""Counting by key, by property: whatever is asked for, by whomever, whenever."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.limits.rates import Places, RateLimit, network_of

EVENTS = st.lists(
    st.tuples(st.sampled_from("AB"), st.floats(0, 3), st.sampled_from((0.5, 1.0, 4.0, 25.0))), max_size=60
)


@given(EVENTS, st.sampled_from((0.5, 2.0)), st.sampled_from((1, 5, 10)))
def test_nobody_gets_more_than_the_burst_and_what_was_refilled(
    events: list[tuple[str, float, float]], rate: float, burst: int
) -> None:
    limit, now = RateLimit(rate, burst), 0.0
    granted: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, pause, amount in events:
        now += pause
        if limit.take(key, now, amount) == 0:
            granted[key].append((now, amount))
    for grants in granted.values():
        for first, (start, _) in enumerate(grants):
            for last, (end, largest) in enumerate(grants[first:], first):
                total = sum(amount for _, amount in grants[first : last + 1])
                # More than a whole bucket is granted to a full one only, and counts as a whole one there.
                allowed = burst + rate * (end - start) + max(0.0, largest - burst)
                assert total <= allowed + 1e-6


@given(EVENTS, st.sampled_from((0.5, 2.0)), st.sampled_from((1, 5, 10)))
def test_who_waits_as_long_as_told_is_let_in_and_not_before(
    events: list[tuple[str, float, float]], rate: float, burst: int
) -> None:
    limit, now = RateLimit(rate, burst), 0.0
    for key, pause, amount in events:
        now += pause
        wait = limit.take(key, now, amount)
        if wait > 1e-9:  # less is lost in the clock's own rounding
            assert limit.wait(key, now + wait * 0.99, amount) > 0
            assert limit.wait(key, now + wait + 1e-6, amount) == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), max_size=200))
def test_no_more_keys_are_kept_than_are_to_be_remembered(events: list[tuple[int, float]]) -> None:
    limit, now = RateLimit(1, 1, remembered=10), 0.0
    for key, pause in events:
        now += pause
        limit.take(key, now)
        assert len(limit) <= 10


def test_idle_keys_are_forgotten() -> None:
    limit = RateLimit(1, 5)
    for key in range(10_000):
        limit.take(key, 0.0)
    assert len(limit) == 10_000
    for key in range(10_000):
        limit.take(f"new {key}", 100.0 + key)
    assert len(limit) <= 2


def test_one_key_does_not_use_up_the_bucket_of_another() -> None:
    limit = RateLimit(1, 2)
    assert [limit.take("A", 0.0) for _ in range(3)] == [0, 0, 1]
    assert limit.take("B", 0.0) == 0


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.booleans()), max_size=100), st.integers(1, 4))
def test_nobody_has_more_places_than_the_limit_and_those_with_none_are_forgotten(
    events: list[tuple[str, bool]], limit: int
) -> None:
    places = Places(limit)
    taken: Counter[str] = Counter()
    for key, takes in events:
        if takes:
            assert places.take(key) == (taken[key] < limit)
            taken[key] = min(limit, taken[key] + 1)
        elif taken[key]:
            places.give_back(key)
            taken[key] -= 1
        assert places.room(key) == limit - taken[key]
        assert len(places) == sum(count > 0 for count in taken.values())


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_addresses_are_counted_by_what_one_customer_has(host: str, network: str) -> None:
    assert network_of(host) == network
