"""Fair order and batches, without threads, models or a clock."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engines.scheduling.costs import Costs
from engines.scheduling.scheduler import TileScheduler


def at_most(limit):
    return lambda _: limit


def drain(scheduler, limit=1):
    """The tasks, in the order in which their tiles run."""
    while batch := scheduler.next_batch(at_most(limit)):
        scheduler.finish(batch)
        yield from (task for task, _ in batch.tiles)


def added(*tasks, **costs):
    """A scheduler with (account, task, number of tiles) of one key; what tiles of other keys cost."""
    scheduler = TileScheduler(lambda key: costs.get(key, 100))
    for account, task, count in tasks:
        scheduler.add(account, task, "key", range(count))
    return scheduler


class Queue(RuleBasedStateMachine):
    """Whatever is added, cancelled, taken and put back: no tile is lost or there twice."""

    def __init__(self):
        super().__init__()
        self.costs = dict.fromkeys("xyz", 10)
        self.scheduler = TileScheduler(self.costs.__getitem__)
        self.waiting = {}
        self.handed_out = []
        self.cancelled = set()
        self.arrivals = 0

    @rule(account=st.sampled_from("ABC"), key=st.sampled_from("xyz"), count=st.integers(1, 6))
    def add(self, account, key, count):
        self.arrivals += 1
        self.scheduler.add(account, self.arrivals, key, range(count))
        self.waiting[self.arrivals] = (key, list(range(count)))

    @rule(key=st.sampled_from("xyz"), cost=st.integers(1, 100))
    def know_better(self, key, cost):
        self.costs[key] = cost

    @rule(data=st.data())
    def cancel(self, data):
        task = data.draw(st.integers(1, self.arrivals + 1))
        self.scheduler.cancel(task)
        if self.waiting.pop(task, None) is not None:
            self.cancelled.add(task)

    @rule(limit=st.integers(1, 5))
    def take(self, limit):
        batch = self.scheduler.next_batch(at_most(limit))
        if batch is None:
            assert not self.of_key(None)
            return
        assert len(batch.tiles) == min(limit, self.of_key(batch.key))
        for task, tile in batch.tiles:
            key, tiles = self.waiting[task]
            assert (key, tiles.pop(0)) == (batch.key, tile)
        self.handed_out.append(batch)

    @rule(data=st.data(), put_back=st.booleans())
    def end(self, data, put_back):
        if not self.handed_out:
            return
        batch = self.handed_out.pop(data.draw(st.integers(0, len(self.handed_out) - 1)))
        if not put_back:
            self.scheduler.finish(batch, data.draw(st.none() | st.integers(0, 1000)))
            return
        self.scheduler.put_back(batch)
        for task, tile in reversed(batch.tiles):
            if task not in self.cancelled:
                self.waiting[task][1].insert(0, tile)

    @rule()
    def clear(self):
        cleared = {task for task, _ in self.scheduler.clear()}
        assert cleared == {task for task, (_, tiles) in self.waiting.items() if tiles}
        self.cancelled |= cleared
        for task in cleared:
            del self.waiting[task]

    def of_key(self, wanted):
        return sum(len(tiles) for key, tiles in self.waiting.values() if wanted in (None, key))

    @invariant()
    def waits_exactly_while_a_tile_is_left(self):
        assert bool(self.scheduler) == bool(self.of_key(None))

    def teardown(self):
        """When all is over, nothing is remembered but what accounts had ahead of the others."""
        for batch in self.handed_out:
            self.scheduler.finish(batch)
        for _ in drain(self.scheduler):
            pass
        assert not self.scheduler._tasks
        assert not any(account.tasks for account in self.scheduler._accounts.values())


TestQueue = Queue.TestCase


def test_an_empty_scheduler_has_nothing_to_run():
    assert added().next_batch(at_most(8)) is None


def test_tiles_of_another_key_wait_for_a_batch_of_their_own():
    scheduler = added()
    scheduler.add("A", "big", "x", range(3))
    scheduler.add("B", "other", "y", range(1))
    scheduler.add("C", "third", "x", range(1))
    batches = [scheduler.next_batch(at_most(8)) for _ in range(2)]
    assert [(batch.key, len(batch.tiles)) for batch in batches] == [("y", 1), ("x", 4)]


@given(st.integers(2, 4), st.integers(1, 8), st.integers(1, 40))
def test_under_saturation_accounts_get_equal_shares_at_any_moment(accounts, limit, taken):
    scheduler = added(*((account, account, 60) for account in range(accounts)))
    shares = Counter(islice(drain(scheduler, limit), taken))
    assert max(shares.values()) - min(shares[account] for account in range(accounts)) <= 1


def test_an_account_with_many_tasks_gets_no_more_than_one_with_a_single_task():
    scheduler = added(("B", "only", 20), *(("A", f"a{index}", 20) for index in range(9)))
    assert Counter(islice(drain(scheduler, 4), 40))["only"] == 20


def test_shares_are_of_what_tiles_cost_not_of_tiles():
    scheduler = added(cheap=100, dear=400)
    scheduler.add("A", "small tiles", "cheap", range(90))
    scheduler.add("B", "large tiles", "dear", range(90))
    shares = Counter(islice(drain(scheduler), 50))
    assert shares["small tiles"] == 4 * shares["large tiles"]


def test_a_cost_that_turns_out_higher_counts_from_then_on():
    costs = {"known": 100, "guessed": 1}
    scheduler = TileScheduler(costs.__getitem__)
    scheduler.add("A", "a", "known", range(200))
    scheduler.add("B", "b", "guessed", range(200))
    order = list(islice(drain(scheduler), 1))
    while order[-1] == "a":
        order += islice(drain(scheduler), 1)
    costs["guessed"] = 400
    shares = Counter(islice(drain(scheduler), 50))
    assert shares["a"] == 4 * shares["b"]


def test_a_task_that_turns_out_dear_is_overtaken_by_what_is_small():
    costs = {"known": 100, "guessed": 1}
    scheduler = TileScheduler(costs.__getitem__)
    scheduler.add("A", "dear", "guessed", range(9))
    list(islice(drain(scheduler), 1))
    costs["guessed"] = 4000
    list(islice(drain(scheduler), 1))
    scheduler.add("A", "icon", "known", range(1))
    assert next(drain(scheduler)) == "icon"


RUN, PIXEL = 1e-3, 1e-6  # seconds that a run takes, and each pixel of it
sizes = st.sampled_from([1, 4, 16 * 16, 64 * 64, 256 * 256, 512 * 512])


@given(
    st.lists(st.lists(sizes, min_size=1, max_size=4), min_size=2, max_size=3),
    st.lists(sizes, max_size=12),
    st.sampled_from([1, 4, 16]),
)
def test_whatever_sizes_they_send_accounts_get_equal_device_time(sizes_of, before, limit):
    """At any moment their times differ by two batches at most, though the first account was alone before."""
    costs, taken, longest = Costs(), Counter(), 0.0
    scheduler = TileScheduler(lambda pixels: costs.cost("network", pixels))

    def run():
        batch = scheduler.next_batch(at_most(limit))
        seconds = RUN + PIXEL * batch.key * len(batch.tiles)
        costs.learn("network", batch.key, seconds / len(batch.tiles))
        scheduler.finish(batch, round(seconds * 1e9))
        for (account, _), _ in batch.tiles:
            taken[account] += seconds / len(batch.tiles)
        return seconds

    for number, pixels in enumerate(before):
        scheduler.add(0, (0, f"before {number}"), pixels, [None])
        longest = max(longest, run())
    taken.clear()
    for account, of_account in enumerate(sizes_of):
        for number, pixels in enumerate(of_account):
            scheduler.add(account, (account, number), pixels, [None] * 2000)
    for _ in range(100):
        longest = max(longest, run())
        times = [taken[account] for account in range(len(sizes_of))]
        assert max(times) - min(times) <= 2 * longest + 1e-6


def test_an_account_that_comes_late_starts_level_with_the_others():
    scheduler = added(("A", "early", 100))
    list(islice(drain(scheduler), 50))
    scheduler.add("B", "late", "key", range(50))
    assert 9 <= Counter(islice(drain(scheduler), 20))["late"] <= 11


def test_sending_tasks_one_by_one_gains_nothing_over_sending_them_at_once():
    scheduler = added(("A", "backlog", 100))
    order = []
    for index in range(20):
        scheduler.add("B", f"single {index}", "key", range(1))
        while f"single {index}" not in order:
            order += islice(drain(scheduler), 1)
    assert 19 <= order.count("backlog") <= 21


def test_an_account_that_comes_back_after_a_pause_still_owes_what_it_had_ahead_of_the_others():
    scheduler = added(("A", "backlog", 100), large=400)
    order = []
    for single in range(10):
        scheduler.add("B", single, "large", range(1))
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
    scheduler.add("A", "icon", "key", range(1))
    assert next(drain(scheduler)) == "icon"


def test_a_small_task_overtakes_big_ones_that_came_long_before():
    scheduler = added(*(("A", f"big {n}", 10) for n in range(20)))
    list(islice(drain(scheduler), 25))
    scheduler.add("A", "icon", "key", range(1))
    assert next(drain(scheduler)) == "icon"


def test_a_big_task_is_not_starved_by_a_stream_of_small_ones():
    scheduler = added(("A", "big", 10))
    order = []
    for index in range(30):
        scheduler.add("A", f"small {index}", "key", range(2))
        order += islice(drain(scheduler), 2)
    assert order.count("big") == 10


def test_a_cancelled_task_drops_exactly_what_was_left_of_it():
    scheduler = added(("A", "one", 4), ("A", "two", 2))
    assert list(islice(drain(scheduler), 3)) == ["two", "two", "one"]
    scheduler.cancel("one")
    assert list(drain(scheduler)) == []


tasks = st.lists(
    st.tuples(st.sampled_from("ABC"), st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=6
)


def filled(tasks, taken):
    """A scheduler from which some tiles have been taken, so that the accounts stand differently."""
    scheduler = TileScheduler(lambda cost: cost)
    for name, (account, count, cost) in enumerate(tasks):
        scheduler.add(account, name, cost, range(count))
    list(islice(drain(scheduler), taken))
    return scheduler


@given(tasks, st.integers(0, 10), st.integers(1, 8), st.integers(1, 3))
def test_a_batch_that_is_put_back_leaves_no_trace_in_the_order(tasks, taken, limit, times):
    scheduler, twin = filled(tasks, taken), filled(tasks, taken)
    for _ in range(times):
        if batch := scheduler.next_batch(at_most(limit)):
            scheduler.put_back(batch)
    assert list(drain(scheduler)) == list(drain(twin))


def test_nobody_pays_for_what_was_put_back_even_after_others_went_on():
    scheduler = added(("A", "a", 40), ("B", "b", 40))
    lost = scheduler.next_batch(at_most(8))
    list(islice(drain(scheduler), 20))
    scheduler.put_back(lost)
    shares = Counter(task for task, _ in lost.tiles) + Counter(islice(drain(scheduler), 20))
    assert abs(shares["a"] - shares["b"]) <= 8
    assert Counter(drain(scheduler)).total() == 80 - 20 - 20


def test_a_task_that_is_cancelled_while_its_tiles_run_does_not_come_back_with_them():
    scheduler = added(("A", "one", 4), ("B", "two", 2))
    batch = scheduler.next_batch(at_most(4))
    scheduler.cancel("one")
    scheduler.put_back(batch)
    assert list(drain(scheduler)) == ["two", "two"]


def test_a_name_that_is_used_again_does_not_get_the_tiles_of_its_predecessor():
    scheduler = added(("A", "one", 2))
    batch = scheduler.next_batch(at_most(2))
    scheduler.cancel("one")
    scheduler.add("A", "one", "key", ["new"])
    scheduler.put_back(batch)
    assert scheduler.next_batch(at_most(9)).tiles == [("one", "new")]


def test_each_key_has_a_limit_of_its_own():
    scheduler = added(x=1)
    scheduler.add("A", "small", "x", range(4))
    scheduler.add("A", "large", "y", range(4))
    batches = [scheduler.next_batch({"x": 4, "y": 1}.get) for _ in range(2)]
    assert [(batch.key, len(batch.tiles)) for batch in batches] == [("x", 4), ("y", 1)]


def test_cancelling_a_task_that_is_not_queued_changes_nothing():
    scheduler = added(("A", "one", 1))
    scheduler.cancel("other")
    assert list(drain(scheduler)) == ["one"]


def test_a_name_can_be_used_again_once_its_task_has_left_the_queue():
    scheduler = added(("A", "one", 1))
    list(drain(scheduler))
    scheduler.add("A", "one", "key", range(1))
    assert list(drain(scheduler)) == ["one"]


@pytest.mark.parametrize(("task", "count"), [("one", 1), ("two", 0)])
def test_a_task_queued_twice_or_without_tiles_is_refused(task, count):
    scheduler = added(("A", "one", 1))
    with pytest.raises(ValueError, match=f"'{task}'"):
        scheduler.add("A", task, "key", range(count))
