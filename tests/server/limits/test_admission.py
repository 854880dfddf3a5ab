"""How many tasks may be under way, and what is said of those that are too many."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.limits.admission import Admission
from server.protocol.errors import BusyError, RateLimitError
from server.state.accounts import AccountId
from tests.server.conftest import StartServer
from tests.server.support.harness import connected, make_image, upscale
from tests.server.support.web import Web

ALICE, BOB = AccountId("alice"), AccountId("bob")


@given(st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.booleans())))
def test_the_limits_hold_whatever_comes_and_goes(steps: list[tuple[AccountId, bool]]) -> None:
    admission = Admission(limit=5, limit_per_account=3)
    under_way: Counter[AccountId] = Counter()
    for now, (account, comes) in enumerate(steps):
        if comes:
            try:
                admission.enter(account)
            except RateLimitError:
                assert under_way[account] == 3
            except BusyError:
                assert under_way.total() == 5
            else:
                under_way[account] += 1
        elif under_way[account]:
            admission.leave(account, now)
            under_way[account] -= 1
        assert under_way.total() <= 5
        assert max(under_way.values(), default=0) <= 3


def test_the_hint_follows_the_pace() -> None:
    admission = Admission(limit=100, limit_per_account=100)
    for second in range(10):
        admission.enter(ALICE)
        admission.leave(ALICE, 2.0 * second)
    for _ in range(100):
        admission.enter(ALICE)
    with pytest.raises(BusyError, match="20 seconds") as busy:
        admission.enter(BOB)
    assert busy.value.retry_after == 20  # ten of a hundred, one in two seconds


async def test_a_task_beyond_the_limit_of_all_is_told_when_to_come_again(
    start_server: StartServer, web: Web
) -> None:
    server = start_server(private_networks=True, max_tasks=1)
    held = web.hold("/held.png", make_image())
    async with connected(server) as peer:
        await peer.send(upscale(held))
        await web.receive()
        (refused,) = await peer.ask(upscale(held))
        web.release("/held.png")
        assert (refused["code"], refused["retryAfter"]) == ("serviceUnavailable", 1)
        assert "imageURL" in await peer.receive_item()


async def test_a_task_that_takes_too_long_fails(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True, task_timeout=0.05)
    async with connected(server) as peer:
        (failed,) = await peer.ask(upscale(web.hold("/held.png", make_image())))
    assert failed["code"] == "taskTimeout"
