"""Who takes what waits when it comes to an end."""

import math

from hypothesis import given
from hypothesis import strategies as st

from engines.scheduling.sharing import Other, is_left, share

IDLE = 0.0


def test_a_slow_device_leaves_the_last_tiles_to_those_that_are_done_with_them_long_before():
    assert is_left(10, 3, [Other(IDLE, 1)])


def test_a_slow_device_takes_what_the_others_cannot_do_in_time():
    assert not is_left(10, 6, [Other(IDLE, 1)])
    assert is_left(10, 6, [Other(IDLE, 1), Other(IDLE, 2)])


def test_those_that_are_busy_count_from_when_they_are_free():
    assert is_left(10, 3, [Other(2, 1)])
    assert not is_left(10, 3, [Other(4, 1)])
    assert not is_left(10, 1, [Other(math.inf, 1)])


times = st.floats(1e-3, 1e3)


@given(st.lists(times, min_size=1, max_size=8), st.integers(1, 20))
def test_there_is_always_one_that_leaves_nothing(each, waiting):
    left = [
        is_left(mine, waiting, [Other(IDLE, other) for j, other in enumerate(each) if j != i])
        for i, mine in enumerate(each)
    ]
    assert not all(left)


def test_devices_that_are_free_share_a_batch():
    assert [share(16, 8), share(3, 2), share(1, 8), share(5, 1)] == [2, 2, 1, 5]
