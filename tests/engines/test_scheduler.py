"""Fair order and batches, without threads, models or a clock."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engines.scheduler import TileScheduler


def drain(scheduler, limit=1):
    """The tasks, in the order in which their tiles run."""
    while batch := scheduler.next_batch(limit):
        yield from (task for task, _ in batch.tiles)


def added(*tasks):
    """A scheduler with (account, task, number of tiles) of one key and equal cost."""
    scheduler = TileScheduler()
    for account, task, count in tasks:
        scheduler.add(account, task, "key", range(count), tile_cost=100)
    return scheduler


class Queue(RuleBasedStateMachine):
    """Whatever is added, cancelled and taken: no tile is lost or runs twice, and batches are of one key."""

    def __init__(self):
        super().__init__()
        self.scheduler = TileScheduler()
        self.left = {}
        self.arrivals = 0

    @rule(account=st.sampled_from("ABC"), key=st.sampled_from("xyz"), count=st.integers(1, 6))
    def add(self, account, key, count):
        self.arrivals += 1
        self.scheduler.add(account, self.arrivals, key, range(count), tile_cost=count * 10)
        self.left[self.arrivals] = (key, list(range(count)))

    @rule(data=st.data())
    def cancel(self, data):
        task = data.draw(st.integers(1, self.arrivals + 1))
        self.scheduler.cancel(task)
        self.left.pop(task, None)

    @rule(limit=st.integers(1, 5))
    def take(self, limit):
        batch = self.scheduler.next_batch(limit)
        if batch is None:
            assert not self.left
            return
        of_key = sum(len(tiles) for key, tiles in self.left.values() if key == batch.key)
        assert len(batch.tiles) == min(limit, of_key)
        for task, tile in batch.tiles:
            key, tiles = self.left[task]
            assert (key, tiles.pop(0)) == (batch.key, tile)
            if not tiles:
                del self.left[task]

    @invariant()
    def waits_exactly_while_a_tile_is_left(self):
        assert bool(self.scheduler) == bool(self.left)


TestQueue = Queue.TestCase


def test_an_empty_scheduler_has_nothing_to_run():
    assert TileScheduler().next_batch(8) is None


def test_tiles_of_another_key_wait_for_a_batch_of_their_own():
    scheduler = TileScheduler()
    scheduler.add("A", "big", "x", range(3), tile_cost=100)
    scheduler.add("B", "other", "y", range(1), tile_cost=100)
    scheduler.add("C", "third", "x", range(1), tile_cost=100)
    batches = [scheduler.next_batch(8) for _ in range(2)]
    assert [(batch.key, len(batch.tiles)) for batch in batches] == [("y", 1), ("x", 4)]


@given(st.integers(2, 4), st.integers(1, 8), st.integers(1, 40))
def test_under_saturation_accounts_get_equal_shares_at_any_moment(accounts, limit, taken):
    scheduler = added(*((account, account, 60) for account in range(accounts)))
    shares = Counter(islice(drain(scheduler, limit), taken))
    assert max(shares.values()) - min(shares[account] for account in range(accounts)) <= 1


def test_an_account_with_many_tasks_gets_no_more_than_one_with_a_single_task():
    scheduler = added(("B", "only", 20), *(("A", f"a{index}", 20) for index in range(9)))
    assert Counter(islice(drain(scheduler, 4), 40))["only"] == 20


def test_shares_are_of_pixels_not_of_tiles():
    scheduler = TileScheduler()
    scheduler.add("A", "small tiles", "x", range(90), tile_cost=100)
    scheduler.add("B", "large tiles", "y", range(90), tile_cost=400)
    shares = Counter(islice(drain(scheduler), 50))
    assert shares["small tiles"] == 4 * shares["large tiles"]


def test_an_account_that_comes_late_starts_level_with_the_others():
    scheduler = added(("A", "early", 100))
    list(islice(drain(scheduler), 50))
    scheduler.add("B", "late", "key", range(50), tile_cost=100)
    assert 9 <= Counter(islice(drain(scheduler), 20))["late"] <= 11


def test_sending_tasks_one_by_one_gains_nothing_over_sending_them_at_once():
    scheduler = added(("A", "backlog", 100))
    order = []
    for index in range(20):
        scheduler.add("B", f"single {index}", "key", range(1), tile_cost=100)
        while f"single {index}" not in order:
            order += islice(drain(scheduler), 1)
    assert 19 <= order.count("backlog") <= 21


def test_an_account_that_comes_back_after_a_pause_still_owes_what_it_had_ahead_of_the_others():
    scheduler = added(("A", "backlog", 100))
    order = []
    for single in range(10):
        scheduler.add("B", single, "large", range(1), tile_cost=400)
        while single not in order:
            order += islice(drain(scheduler), 1)
        order += islice(drain(scheduler), 1)
    assert 36 <= order.count("backlog") <= 44


def test_equal_tasks_of_an_account_run_in_order_of_arrival():
    scheduler = added(*(("A", name, 3) for name in "stuv"))
    assert list(drain(scheduler)) == list("sssttt" + "uuuvvv")


def test_a_small_task_overtakes_a_big_one_under_way():
    scheduler = added(("A", "big", 100))
    list(islice(drain(scheduler), 10))
    scheduler.add("A", "icon", "key", range(1), tile_cost=100)
    assert next(drain(scheduler)) == "icon"


def test_a_big_task_is_not_starved_by_a_stream_of_small_ones():
    scheduler = added(("A", "big", 10))
    order = []
    for index in range(30):
        scheduler.add("A", f"small {index}", "key", range(2), tile_cost=100)
        order += islice(drain(scheduler), 2)
    assert order.count("big") == 10


def test_a_cancelled_task_drops_exactly_what_was_left_of_it():
    scheduler = added(("A", "one", 4), ("A", "two", 2))
    assert list(islice(drain(scheduler), 3)) == ["two", "two", "one"]
    scheduler.cancel("one")
    assert list(drain(scheduler)) == []


def test_cancelling_a_task_that_is_not_queued_changes_nothing():
    scheduler = added(("A", "one", 1))
    scheduler.cancel("other")
    assert list(drain(scheduler)) == ["one"]


def test_a_name_can_be_used_again_once_its_task_has_left_the_queue():
    scheduler = added(("A", "one", 1))
    list(drain(scheduler))
    scheduler.add("A", "one", "key", range(1), tile_cost=100)
    assert list(drain(scheduler)) == ["one"]


@pytest.mark.parametrize(("task", "count"), [("one", 1), ("two", 0)])
def test_a_task_queued_twice_or_without_tiles_is_refused(task, count):
    scheduler = added(("A", "one", 1))
    with pytest.raises(ValueError, match=f"'{task}'"):
        scheduler.add("A", task, "key", range(count), tile_cost=100)
