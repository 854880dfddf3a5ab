"""Outcomes are told to `webhookURL`: signed, until the receiver takes them, over days and restarts."""

import asyncio
import base64
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from obstore.store import MemoryStore
from standardwebhooks import Webhook, WebhookVerificationError

from server.delivery.results import Results
from server.delivery.webhooks import DELAYS, WebhookSender, asked_delay, next_delay, signed_headers
from server.images.bucket import Bucket
from server.images.raw_images import RawImages
from server.images.store import ImageStore
from server.outbound.addresses import Reachable
from server.outbound.fetch import WebClient
from server.protocol.errors import DatabaseUnavailableError, ErrorItem, UnavailableError
from server.serving import EmbeddedServer
from server.state import tasks, webhooks
from server.state.accounts import AccountId, account_named
from server.state.database import Database
from server.state.requests import Destination
from server.state.webhooks import WebhookRecord, WebhookStatus
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    PATIENCE,
    Account,
    Item,
    Peer,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    until,
    upscale,
)
from tests.server.support.process import REPOSITORY
from tests.server.support.records import accepted
from tests.server.support.web import Web, running_web

pytestmark = [pytest.mark.each_database, pytest.mark.settings(private_networks=True)]

DAY = 86400
LEASE = PATIENCE + 60
FAILURE = ErrorItem(code="downloadFailed", message="no", task_uuid="x")
SECRETS = [f"whsec_{base64.b64encode(bytes([n]) * 24).decode()}" for n in range(1, 4)]


def test_ten_attempts_are_made_in_three_days() -> None:
    delays = [next_delay(attempts, 0) for attempts in range(11)]
    assert delays == [*DELAYS, None]
    assert sum(DELAYS) == pytest.approx(3 * DAY, rel=0.1)


def test_the_delays_are_made_longer_by_chance() -> None:
    assert next_delay(2, 0.5) == pytest.approx(330)
    assert next_delay(2, 1) == pytest.approx(360)


def test_what_the_receiver_asks_for_is_heeded_within_reason() -> None:
    assert next_delay(1, 0, retry_after=60) == 60
    assert next_delay(2, 0, retry_after=60) == 300, "it would have been later anyway"
    assert next_delay(1, 0, retry_after=1e9) == DAY
    assert next_delay(len(DELAYS), 0, retry_after=1) is None


@pytest.mark.parametrize(
    ("header", "delay"),
    [
        (None, 0),
        ("120", 120),
        ("Thu, 01 Jan 1970 00:17:40 GMT", 60),
        ("9" * 5000, 999_999_999),
        ("soon", 0),
        ("-5", 0),
        ("", 0),
        ("²", 0),
    ],
)
def test_a_retry_after_is_seconds_or_a_date(header: str | None, delay: float) -> None:
    assert asked_delay(header, 1_000.0) == delay


def test_a_signature_is_made_with_each_secret() -> None:
    now = 1_700_000_000.9
    headers = signed_headers("msg_1", b'{"data":[]}', SECRETS[:2], now)
    assert headers["webhook-timestamp"] == "1700000000"
    signatures = headers["webhook-signature"].split(" ")
    assert len(signatures) == 2
    assert all(signature.startswith("v1,") for signature in signatures)


@pytest.mark.parametrize("secret", SECRETS[:2])
def test_whoever_has_one_of_the_secrets_can_verify(secret: str) -> None:
    body = '{"data":[{"message":"größer"}]}'
    headers = signed_headers("msg_1", body.encode(), SECRETS[:2], time.time())
    assert Webhook(secret).verify(body, headers) == msgspec.json.decode(body)
    for changed in (
        headers | {"webhook-id": "msg_2"},
        signed_headers("msg_1", b"{}", SECRETS[:2], time.time()),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, changed)


def test_another_secret_verifies_nothing() -> None:
    headers = signed_headers("msg_1", b"{}", SECRETS[:2], time.time())
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS[2]).verify("{}", headers)


class Sending:
    """A sender on a clock that the test moves."""

    def __init__(self, database: Database, account: AccountId, sender: WebhookSender) -> None:
        self.database = database
        self.account = account
        self.sender = sender
        self.now = time.time()

    def fail_task(self, url: str) -> str:
        """A task that has just failed, to be told at `url`; its UUID."""
        task = new_uuid()
        to = Destination(url, "http://us")
        attempt = accepted(self.database, self.account, self.now, task=task)
        self.database.run_sync(tasks.fail, attempt, FAILURE, self.now, webhook=to)
        self.sender.wake()
        return task

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.sender.wake()

    async def record(self, task: str) -> WebhookRecord:
        found = await self.database.run(webhooks.find_webhook, self.account, task)
        assert found is not None
        return found

    async def attempted(self, task: str, attempts: int) -> WebhookRecord:
        """The record after so many attempts have failed."""

        async def ended() -> bool:
            record = await self.record(task)
            under_way = record.next_attempt == self.now + LEASE
            return record.attempts == attempts and record.last_error is not None and not under_way

        await until(ended)
        return await self.record(task)

    async def delivered(self, task: str) -> None:
        async def ended() -> bool:
            return (await self.record(task)).status is WebhookStatus.DELIVERED

        await until(ended)


Send = Callable[..., AbstractAsyncContextManager[Sending]]


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[Send]:
    """Runs senders, one after the other, on one database."""
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    account = database.run_sync(account_named, "ada", 0.0)

    @asynccontextmanager
    async def run(*, private_networks: bool = True) -> AsyncIterator[Sending]:
        web = WebClient(timeout=PATIENCE, reachable=Reachable(all_private=private_networks))
        results = Results(ImageStore(Bucket(MemoryStore()), database), RawImages(0))
        sender = WebhookSender(
            database=database,
            results=results,
            web=web,
            timeout=PATIENCE,
            clock=lambda: state.now,
            chance=lambda: 0.0,
        )
        state = Sending(database, account, sender)
        running = asyncio.create_task(sender.run())
        yield state
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await sender.stop()
        await web.close()

    yield run
    database.close()


async def test_a_webhook_is_sent_until_it_is_taken_always_under_the_same_id(sending: Send, web: Web) -> None:
    web.statuses.extend([500, 302, 404])
    async with sending() as state:
        start = state.now
        task = state.fail_task(f"{web.url}/hook")
        calls = []
        for attempts, status in enumerate([500, 302, 404], 1):
            calls.append(await web.receive())
            record = await state.attempted(task, attempts)
            assert record.last_error is not None
            assert str(status) in record.last_error
            assert record.next_attempt == pytest.approx(state.now + DELAYS[attempts])
            state.pass_time(DELAYS[attempts])
        calls.append(await web.receive())
        await state.delivered(task)
        state.pass_time(10 * DAY)
        (secret,) = state.database.run_sync(webhooks.signing_secrets, state.account, state.now)
    assert web.waiting() == 0
    assert len({call.headers["webhook-id"] for call in calls}) == 1
    times = [int(call.headers["webhook-timestamp"]) - int(start) for call in calls]
    assert times == pytest.approx([0, 5, 305, 2105], abs=1)
    assert Webhook(secret).verify(calls[0].body, calls[0].headers) == msgspec.json.decode(calls[0].body)


async def test_a_webhook_is_not_sent_before_its_time(sending: Send, web: Web) -> None:
    web.statuses.append(500)
    async with sending() as state:
        early = state.fail_task(f"{web.url}/early")
        await state.attempted(early, 1)
        state.pass_time(DELAYS[1] - 0.5)
        await state.delivered(state.fail_task(f"{web.url}/other"))
        assert (await state.record(early)).attempts == 1


async def test_a_receiver_that_asks_for_time_gets_it(sending: Send, web: Web) -> None:
    web.statuses.append(503)
    web.retry_after = "100"
    async with sending() as state:
        record = await state.attempted(state.fail_task(f"{web.url}/hook"), 1)
        assert record.next_attempt == pytest.approx(state.now + 100)


async def test_a_receiver_that_answers_gone_is_not_asked_again(
    sending: Send, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    web.statuses.append(410)
    async with sending() as state:
        task = state.fail_task(f"{web.url}/hook")
        record = await state.attempted(task, 1)
    assert (record.status, record.next_attempt) == (WebhookStatus.FAILED, None)
    assert [entry.levelno for entry in caplog.records if task in entry.getMessage()] == [logging.WARNING]


async def test_a_private_address_is_not_tried_twice(sending: Send, web: Web) -> None:
    async with sending(private_networks=False) as state:
        record = await state.attempted(state.fail_task(f"{web.url}/hook"), 1)
    assert record.status is WebhookStatus.FAILED
    assert "not a public address" in (record.last_error or "")
    assert web.waiting() == 0


async def test_a_webhook_that_nobody_takes_is_given_up_after_the_last_attempt_and_logged_once(
    sending: Send, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    web.statuses.extend([500] * 100)
    async with sending() as state:
        task = state.fail_task(f"{web.url}/hook")
        for attempts in range(1, len(DELAYS)):
            record = await state.attempted(task, attempts)
            assert record.status is WebhookStatus.PENDING
            state.pass_time(DELAYS[attempts])
        record = await state.attempted(task, len(DELAYS))
        assert (record.status, record.next_attempt) == (WebhookStatus.FAILED, None)
        state.pass_time(10 * DAY)
        await state.delivered(state.fail_task(_taking(web)))
    assert len([entry for entry in caplog.records if task in entry.getMessage()]) == 1


def _taking(web: Web) -> str:
    web.statuses.clear()
    return f"{web.url}/taken"


async def test_a_slow_receiver_gets_few_at_once_and_holds_up_nobody(sending: Send, web: Web) -> None:
    slow = web.hold("/slow")
    with running_web() as quick:
        async with sending() as state:
            waiting = [state.fail_task(slow) for _ in range(20)]
            held = [await web.receive() for _ in range(2)]
            for _ in range(20):
                await state.delivered(state.fail_task(f"{quick.url}/hook"))
            assert web.waiting() == 0, "no more than two at once"
            web.release("/slow")
            for task in waiting:
                await state.delivered(task)
            assert len(held) + web.waiting() == len(waiting)


async def test_an_attempt_that_a_stop_breaks_off_is_made_again_by_the_next_server(
    sending: Send, web: Web
) -> None:
    async with sending() as state:
        task = state.fail_task(web.hold("/hook"))
        first = await web.receive()
    async with sending() as state:
        second = await web.receive()
        web.release("/hook")
        await state.delivered(task)
        assert (await state.record(task)).attempts == 1
    assert second.headers["webhook-id"] == first.headers["webhook-id"]
    assert second.body == first.body


async def test_a_webhook_waits_for_an_image_that_cannot_be_read_just_now(
    sending: Send, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise UnavailableError("the image store cannot be used")

    async with sending() as state:
        with monkeypatch.context() as patch:
            patch.setattr(Results, "item", fail)
            task = state.fail_task(f"{web.url}/hook")
            record = await state.attempted(task, 1)
        assert (record.status, record.last_error) == (WebhookStatus.PENDING, "the image store cannot be used")
        assert web.waiting() == 0
        state.pass_time(DELAYS[1])
        await state.delivered(task)


async def test_after_a_rotation_old_and_new_secret_verify(sending: Send, web: Web) -> None:
    async with sending() as state:
        (old,) = state.database.run_sync(webhooks.signing_secrets, state.account, state.now)
        new = state.database.run_sync(webhooks.rotate_secret, state.account, state.now)
        state.fail_task(f"{web.url}/hook")
        call = await web.receive()
    for secret in (old, new):
        Webhook(secret).verify(call.body, call.headers)


async def test_the_loop_goes_on_after_a_fault_of_the_database(
    sending: Send, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending() as state:
        broken = asyncio.Event()

        async def fail(*_: object) -> None:
            broken.set()
            raise DatabaseUnavailableError

        with monkeypatch.context() as patch:
            patch.setattr(state.database, "run", fail)
            state.sender.wake()
            await broken.wait()
        await state.delivered(state.fail_task(f"{web.url}/hook"))


@pytest.fixture
def account(server: EmbeddedServer) -> Account:
    return open_account(server)


def encoded(seed: int = 0) -> str:
    return base64.b64encode(make_image(seed=seed)).decode()


async def test_a_webhook_gets_the_frame_that_the_socket_gets(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    task = upscale(encoded(), webhookURL=f"{web.url}/hook?x=1", outputType="base64Data", includeCost=True)
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        frame = await peer.receive()
    request = await web.receive()
    assert (request.method, request.path) == ("POST", "/hook?x=1")
    assert request.headers["content-type"] == "application/json"
    assert msgspec.json.decode(request.body) == frame
    assert frame["data"][0]["cost"] == 0.000001


async def test_a_webhook_is_told_of_failures_too(server: EmbeddedServer, account: Account, web: Web) -> None:
    task = upscale(f"{web.url}/nothing", webhookURL=f"{web.url}/hook")
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        frame = await peer.receive()
    assert (await web.receive()).path == "/nothing"
    request = await web.receive()
    assert msgspec.json.decode(request.body) == frame
    assert [error["taskUUID"] for error in frame["errors"]] == [task["taskUUID"]]


async def test_a_webhook_of_a_messagepack_session_gets_json(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    task = upscale(make_image(), webhookURL=f"{web.url}/hook", outputType="base64Data")
    async with connected(server, key=account.key, messagepack=True) as peer:
        (result,) = await peer.ask(task)
    (told,) = msgspec.json.decode((await web.receive()).body)["data"]
    assert base64.b64decode(told.pop("imageBase64Data")) == result.pop("imageBase64Data")
    assert told == result


async def test_a_failing_webhook_keeps_nobody_from_their_result(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    web.statuses.append(500)
    async with connected(server, key=account.key) as peer:
        (result,) = await peer.ask(upscale(encoded(), webhookURL=f"{web.url}/hook"))
    assert "imageURL" in result
    assert charges(server, account.id)[1] == 1


async def told(peer: Peer, task: str, status: str) -> Item:
    """What `getResponse` says of a task once its webhook has this status."""
    found: Item = {}

    async def reached() -> bool:
        nonlocal found
        found = await peer.finished(task)
        return bool(found["webhook"]["status"] == status)

    await until(reached)
    return found


async def test_get_response_tells_how_far_the_webhook_is(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    task = upscale(encoded(), webhookURL=web.hold("/held"))
    async with connected(server, key=account.key) as peer:
        (result,) = await peer.ask(task)
        assert "webhook" not in result, "only who asks is told"
        await web.receive()
        pending = (await told(peer, task["taskUUID"], "pending"))["webhook"]
        assert pending["attempts"] == 1
        assert datetime.fromisoformat(pending["nextAttempt"]).tzinfo is not None
        web.release("/held")
        item = await told(peer, task["taskUUID"], "delivered")
    assert item["imageURL"] == result["imageURL"]
    assert item["webhook"] == {"status": "delivered", "attempts": 1}


async def test_get_response_tells_of_the_webhook_of_a_failed_task(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    web.statuses.append(410)
    task = upscale(f"{web.url}/nothing", webhookURL=f"{web.url}/hook")
    async with connected(server, key=account.key) as peer:
        (error,) = await peer.ask(task)
        assert error["code"] == "downloadFailed"
        assert (await told(peer, task["taskUUID"], "failed"))["webhook"] == {
            "status": "failed",
            "attempts": 1,
            "lastError": "the server answered with status 410",
        }


async def test_no_key_shows_the_secret_that_verifies(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    details = {"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "getDetails"}
    async with connected(server, key=account.key) as peer:
        await peer.ask(upscale(encoded(), webhookURL=f"{web.url}/hook"))
        (reply,) = await peer.ask(details)
    call = await web.receive()
    (secret,) = server.services.database.run_sync(
        webhooks.signing_secrets, AccountId(account.id), time.time()
    )
    assert Webhook(secret).verify(call.body, call.headers)["data"]
    assert secret not in str(reply)


async def test_a_webhook_survives_a_restart_of_the_server(start_server: StartServer, web: Web) -> None:
    changes = {"private_networks": True, "drain_timeout": 0.01}
    server = start_server(**changes)
    task = upscale(encoded(), webhookURL=web.hold("/hook"))
    async with connected(server) as peer:
        (result,) = await peer.ask(task)
        first = await web.receive()
        await asyncio.to_thread(server.stop)
    server = start_server(**changes)
    second = await web.receive()
    web.release("/hook")
    async with connected(server) as peer:
        await told(peer, task["taskUUID"], "delivered")
    assert second.headers["webhook-id"] == first.headers["webhook-id"]
    assert second.body == first.body
    assert msgspec.json.decode(second.body) == {"data": [result]}


async def test_the_receiver_in_the_documentation_verifies(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    page = (REPOSITORY / "server" / "docs" / "webhooks.md").read_text("utf-8")
    example = re.search(r"<!-- webhook -->\n```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    await _ask(server, account, f"{web.url}/hook")
    call = await web.receive()
    (secret,) = server.services.database.run_sync(webhooks.signing_secrets, account.id, time.time())
    names: dict[str, Any] = {}
    exec(example[1].replace("YOUR_SECRET", secret), names)  # noqa: S102 - our own
    (item,) = names["received"](call.headers, call.body)["data"]
    assert "imageURL" in item
    with pytest.raises(WebhookVerificationError):
        names["received"](call.headers, call.body.replace(b"imageURL", b"imageUrl"))


async def _ask(server: EmbeddedServer, account: Account, url: str) -> None:
    async with connected(server, key=account.key) as peer:
        await peer.ask(upscale(encoded(), webhookURL=url))


async def test_a_webhook_that_arrived_just_before_a_stop_is_not_sent_again(
    sending: Send, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    marking, go_on = threading.Event(), threading.Event()

    def finish_slowly(*arguments: Any) -> None:
        marking.set()
        assert go_on.wait(PATIENCE)
        webhooks.finish(*arguments)

    monkeypatch.setattr("server.delivery.webhooks.finish", finish_slowly)
    async with sending() as state:
        task = state.fail_task(f"{web.url}/hook")
        await web.receive()
        await asyncio.to_thread(marking.wait, PATIENCE)
        for attempt in state.sender._attempts:
            attempt.cancel()
        go_on.set()
    assert (await state.record(task)).status is WebhookStatus.DELIVERED
