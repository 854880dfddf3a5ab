"""How many tasks may be under way, and what is said of those that are too many."""

import base64

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
    under_way: dict[AccountId, list[str]] = {ALICE: [], BOB: []}
    for now, (account, comes) in enumerate(steps):
        here, all_together = len(under_way[account]), sum(map(len, under_way.values()))
        if comes:
            try:
                admission.enter(account, str(now))
            except RateLimitError:
                assert here == 3
            except BusyError:
                assert all_together == 5
            else:
                assert (here < 3, all_together < 5) == (True, True)
                under_way[account].append(str(now))
        elif under_way[account]:
            admission.leave(under_way[account].pop(), now)


def test_a_task_has_one_place_however_often_it_takes_it_or_gives_it_back() -> None:
    admission = Admission(limit=2, limit_per_account=2)
    for _ in range(3):
        admission.enter(ALICE, "first")
        admission.resume(ALICE, "first")
    admission.enter(ALICE, "second")
    for _ in range(3):
        admission.leave("first", 1.0)
    admission.enter(ALICE, "third")
    with pytest.raises(RateLimitError):
        admission.enter(ALICE, "fourth")


def test_the_hint_follows_the_pace() -> None:
    admission = Admission(limit=100, limit_per_account=100)
    for second in range(10):
        admission.enter(ALICE, "task")
        admission.leave("task", 2.0 * second)
    for number in range(100):
        admission.enter(ALICE, f"task {number}")
    with pytest.raises(BusyError, match="20 seconds") as busy:
        admission.enter(BOB, "another")
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


async def test_at_its_limit_an_account_still_gets_what_it_sent_before(
    start_server: StartServer, web: Web
) -> None:
    server = start_server(private_networks=True, max_tasks_in_flight=1)
    done, held = upscale(_image()), upscale(web.hold("/held.png", make_image()))
    async with connected(server) as peer, connected(server) as other:
        (result,) = await peer.ask(done)
        await peer.send(held)
        await web.receive()
        assert (await other.ask(done))[0]["imageURL"] == result["imageURL"]
        assert (await other.ask(upscale(_image())))[0]["code"] == "taskRateLimit"
        await other.send(held)
        await other.nothing_more()
        web.release("/held.png")
        assert "imageURL" in await other.receive_item()


async def test_a_result_makes_room_for_the_next_task(start_server: StartServer) -> None:
    server = start_server(max_tasks_in_flight=1)
    async with connected(server) as peer:
        for _ in range(20):
            assert "imageURL" in (await peer.ask(upscale(_image())))[0]


def _image() -> str:
    return base64.b64encode(make_image()).decode()
