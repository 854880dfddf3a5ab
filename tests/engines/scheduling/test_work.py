"""What is remembered of a device's memory."""

from hypothesis import given
from hypothesis import strategies as st

from engines.scheduling.work import Room

seconds = st.floats(0, 1e9)


def test_twice_as_much_is_tried_every_ten_minutes():
    room = Room(100, since=50)
    assert [room.at(50 + after) for after in (0, 599, 600, 1199, 1200)] == [100, 100, 200, 200, 400]


@given(seconds, seconds)
def test_what_is_tried_never_shrinks_and_is_no_endless_number(first, second):
    early, late = sorted((first, second))
    room = Room(1_000_000, since=0)
    assert 1_000_000 <= room.at(early) <= room.at(late) < 1e13
