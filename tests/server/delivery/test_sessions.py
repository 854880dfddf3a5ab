"""Sessions outlive their connections: what was missed comes when the client is back."""

import asyncio
import base64
import secrets
from contextlib import AbstractAsyncContextManager, nullcontext

import msgspec
import pytest
from sqlalchemy import Connection, select, update

from server.delivery.sessions import Sessions
from server.images.store import ImageStore
from server.protocol.codec import JSON
from server.protocol.errors import ServerError
from server.serving import EmbeddedServer
from server.state.accounts import AccountId, account_named
from server.state.claims import ServerId
from server.state.database import Database
from server.state.logins import Login
from server.state.outbox import UndeliveredReply, keep_undelivered, undelivered
from server.state.records import Attempt, TaskRecord
from server.state.tables import tasks
from server.state.tasks import accept, fail, find, withdraw
from tests.server.support.harness import (
    KEY,
    PATIENCE,
    Item,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    until,
    upscale,
)
from tests.server.support.records import accepted
from tests.server.support.web import Web

pytestmark = [pytest.mark.each_database, pytest.mark.settings(private_networks=True)]

FAILURE = ServerError().item("imageUpscale", new_uuid(), None)


def hold(web: Web, width: int = 24, height: int = 16) -> tuple[str, str]:
    """An input that is not answered until its path is released: the path and the URL."""
    path = f"/{secrets.token_hex(4)}.png"
    return path, web.hold(path, make_image(width, height, seed=secrets.randbits(32)))


async def finish_while_away(server: EmbeddedServer, web: Web, path: str, task: Item) -> Item:
    """Let a task finish; what another connection of the account is told of it."""
    web.release(path)
    async with connected(server) as other:
        return await other.finished(task["taskUUID"])


async def begin_and_cut(server: EmbeddedServer, web: Web, session: str, task: Item) -> None:
    async with connected(server, session=session) as peer:
        await peer.send(task)
        await web.receive()
        await peer.cut()


async def test_a_result_that_was_missed_comes_right_after_the_authentication_and_once(
    server: EmbeddedServer, web: Web
) -> None:
    path, url = hold(web)
    task = upscale(url)
    async with connected(server, key=None) as peer:
        session = (await peer.authenticate())["connectionSessionUUID"]
        await peer.send(task)
        await web.receive()
        await peer.cut()
    told = await finish_while_away(server, web, path, task)
    async with connected(server, key=None) as peer:
        assert (await peer.authenticate(session=session))["connectionSessionUUID"] == session
        result = await peer.receive_item()
        assert result == {name: value for name, value in told.items() if name != "status"}
        assert result["taskUUID"] == task["taskUUID"]
        await peer.nothing_more()
    async with connected(server, session=session) as peer:
        await peer.nothing_more()


async def test_a_result_comes_to_the_new_connection_when_the_task_outlasts_the_cut(
    server: EmbeddedServer, web: Web
) -> None:
    (path, url), session = hold(web), new_uuid()
    task = upscale(url)
    await begin_and_cut(server, web, session, task)
    async with connected(server, session=session) as peer:
        await peer.nothing_more()
        web.release(path)
        assert (await peer.receive_item())["taskUUID"] == task["taskUUID"]
        await peer.nothing_more()


async def test_a_failure_that_was_missed_comes_too(server: EmbeddedServer, web: Web) -> None:
    session = new_uuid()
    path = "/not-an-image"
    task = upscale(web.hold(path, b"no image"))
    await begin_and_cut(server, web, session, task)
    await finish_while_away(server, web, path, task)
    async with connected(server, session=session) as peer:
        frame = await peer.receive()
        assert [error["taskUUID"] for error in frame["errors"]] == [task["taskUUID"]]
        await peer.nothing_more()


async def test_several_missed_replies_come_in_the_order_of_their_outcomes(
    server: EmbeddedServer, web: Web
) -> None:
    session, order = new_uuid(), (2, 0, 1)
    held = [hold(web) for _ in range(3)]
    tasks = [upscale(url) for _, url in held]
    async with connected(server, session=session) as peer:
        await peer.send(*tasks)
        for _ in tasks:
            await web.receive()
        await peer.cut()
    for index in order:
        await finish_while_away(server, web, held[index][0], tasks[index])
    async with connected(server, session=session) as peer:
        came = [(await peer.receive_item())["taskUUID"] for _ in order]
        assert came == [tasks[index]["taskUUID"] for index in order]
        await peer.nothing_more()


async def test_an_outcome_that_cannot_be_read_is_one_error_and_delivery_goes_on(
    server: EmbeddedServer, web: Web
) -> None:
    session, run = new_uuid(), server.services.database.run_sync
    held = [hold(web) for _ in range(4)]
    missed = [upscale(url) for _, url in held]
    async with connected(server, session=session) as peer:
        await peer.send(*missed)
        for _ in missed:
            await web.receive()
        await peer.cut()
    for (path, _), task in zip(held, missed, strict=True):
        await finish_while_away(server, web, path, task)

    def spoil(connection: Connection) -> None:
        for index, column in ((0, tasks.c.result), (2, tasks.c.request)):
            this = tasks.c.task_uuid == missed[index]["taskUUID"]
            connection.execute(update(tasks).where(this).values({column: b"not JSON"}))
        account = connection.scalar(
            select(tasks.c.account_id).where(tasks.c.task_uuid == missed[0]["taskUUID"])
        )
        keep_undelivered(connection, account, session, 0.0, b"\xc1")

    run(spoil)
    async with connected(server, session=session) as peer:
        items = [await peer.receive_item() for _ in missed]
        await peer.nothing_more()
    assert [item["taskUUID"] for item in items] == [task["taskUUID"] for task in missed]
    assert [item.get("code") for item in items] == ["internalServerError", None, "internalServerError", None]
    async with connected(server, session=session) as peer:
        await peer.nothing_more()


async def test_another_account_cannot_resume_a_session(server: EmbeddedServer, web: Web) -> None:
    (path, url), session = hold(web), new_uuid()
    task = upscale(url)
    await begin_and_cut(server, web, session, task)
    await finish_while_away(server, web, path, task)
    async with connected(server, key=open_account(server).key, session=session) as stranger:
        await stranger.nothing_more()
    async with connected(server, session=session) as peer:
        assert (await peer.receive_item())["taskUUID"] == task["taskUUID"]


async def test_another_account_with_the_same_session_uuid_disturbs_nobody(server: EmbeddedServer) -> None:
    session = new_uuid()
    async with (
        connected(server, session=session) as peer,
        connected(server, key=open_account(server).key, session=session) as stranger,
    ):
        await stranger.nothing_more()
        await peer.nothing_more()


async def test_an_unknown_session_is_begun(server: EmbeddedServer) -> None:
    session = new_uuid()
    async with connected(server, key=None) as peer:
        assert (await peer.authenticate(session=session))["connectionSessionUUID"] == session
        (result,) = await peer.ask(upscale(base64.b64encode(make_image()).decode()))
        assert "imageURL" in result


async def test_a_second_connection_of_a_session_closes_the_first(server: EmbeddedServer, web: Web) -> None:
    (path, url), session = hold(web), new_uuid()
    task = upscale(url)
    async with connected(server, session=session) as first:
        await first.send(task)
        await web.receive()
        async with connected(server, session=session) as second:
            await first.socket.wait_closed()
            assert first.socket.close_code == 4000
            web.release(path)
            assert (await second.receive_item())["taskUUID"] == task["taskUUID"]
            await second.nothing_more()


@pytest.mark.parametrize("when", ["under way", "finished"])
async def test_a_task_sent_again_after_a_cut_gives_the_same_answer_without_new_work(
    server: EmbeddedServer, web: Web, when: str
) -> None:
    account, session = open_account(server), new_uuid()
    path, url = hold(web)
    task = upscale(url, includeCost=True)
    async with connected(server, key=account.key, session=session) as peer:
        await peer.send(task)
        await web.receive()
        await peer.cut()
    if when == "finished":
        web.release(path)
        async with connected(server, key=account.key) as other:
            await other.finished(task["taskUUID"])
    async with connected(server, key=account.key, session=session) as peer:
        replies = [await peer.receive_item()] if when == "finished" else []
        await peer.send(task)
        if when == "under way":
            await peer.nothing_more()
            web.release(path)
        replies.append(await peer.receive_item())
        await peer.nothing_more()
    assert all(reply == replies[0] for reply in replies)
    assert "imageURL" in replies[0]
    assert web.waiting() == 0, "the input was fetched once"
    assert charges(server, account.id)[1] == 1


async def test_a_task_sent_again_from_another_session_is_answered_there(
    server: EmbeddedServer, web: Web
) -> None:
    (path, url), session = hold(web), new_uuid()
    task = upscale(url)
    async with connected(server, session=session) as first, connected(server) as second:
        await first.send(task)
        await web.receive()
        await second.send(task)
        await second.nothing_more()
        web.release(path)
        assert (await second.receive_item())["taskUUID"] == task["taskUUID"]
        await first.nothing_more()


async def test_missed_images_are_sent_whole(server: EmbeddedServer, web: Web) -> None:
    (path, url), session = hold(web, 150, 100), new_uuid()
    task = upscale(url, outputType=["base64Data", "dataURI"])
    await begin_and_cut(server, web, session, task)
    told = await finish_while_away(server, web, path, task)
    async with connected(server, session=session) as peer:
        result = await peer.receive_item()
    assert open_image(base64.b64decode(result["imageBase64Data"])).size == (300, 200)
    assert result["imageBase64Data"] == told["imageBase64Data"]
    assert result["imageDataURI"] == f"data:image/png;base64,{result['imageBase64Data']}"


async def test_a_session_may_come_back_with_messagepack(server: EmbeddedServer, web: Web) -> None:
    (path, url), session = hold(web), new_uuid()
    task = upscale(url, outputType="base64Data")
    await begin_and_cut(server, web, session, task)
    told = await finish_while_away(server, web, path, task)
    async with connected(server, session=session, messagepack=True) as peer:
        result = await peer.receive_item()
        assert result["imageBase64Data"] == base64.b64decode(told["imageBase64Data"])
        await peer.nothing_more()


@pytest.mark.parametrize("messagepack", [False, True], ids=["JSON", "MessagePack"])
async def test_replies_of_other_kinds_are_kept_as_well(
    server: EmbeddedServer, web: Web, messagepack: bool
) -> None:
    (path, url), session = hold(web), new_uuid()
    upload = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": url}
    async with connected(server, session=session, messagepack=messagepack) as peer:
        await peer.send(upload)
        await web.receive()
        await peer.cut()
    async with connected(server, session=session, messagepack=messagepack) as peer:
        web.release(path)
        reply = await peer.receive_item()
        assert reply["taskUUID"] == upload["taskUUID"]
        assert reply["imageURL"].startswith(server.url)
        (result,) = await peer.ask(upscale(reply["imageUUID"]))
        assert "imageURL" in result
        await peer.nothing_more()


async def test_what_was_missed_and_takes_long_does_not_hold_up_what_the_client_sends(
    server: EmbeddedServer, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path, url), session = hold(web), new_uuid()
    task = upscale(url, outputType="base64Data")
    await begin_and_cut(server, web, session, task)
    await finish_while_away(server, web, path, task)
    gate, loops, read = asyncio.Event(), list[asyncio.AbstractEventLoop](), ImageStore.read

    async def read_slowly(store: ImageStore, name: str) -> bytes:
        loops.append(asyncio.get_running_loop())
        await gate.wait()
        return await read(store, name)

    monkeypatch.setattr(ImageStore, "read", read_slowly)
    monkeypatch.setattr("server.connection._MISSED_FIRST", 0.0)
    async with connected(server, session=session) as peer:
        await until(lambda: bool(loops))
        await peer.nothing_more()
        loops[0].call_soon_threadsafe(gate.set)
        assert (await peer.receive_item())["imageBase64Data"]
        await peer.nothing_more()


async def test_a_reply_waits_over_several_visits_that_end_before_it(server: EmbeddedServer, web: Web) -> None:
    (path, url), session = hold(web), new_uuid()
    task = upscale(url)
    await begin_and_cut(server, web, session, task)
    for _ in range(3):
        async with connected(server, session=session) as peer:
            await peer.nothing_more()
            await peer.cut()
    await finish_while_away(server, web, path, task)
    async with connected(server, session=session) as peer:
        assert (await peer.receive_item())["taskUUID"] == task["taskUUID"]


async def test_a_connection_may_change_its_session(server: EmbeddedServer, web: Web) -> None:
    (path, url), session = hold(web), new_uuid()
    task = upscale(url)
    await begin_and_cut(server, web, session, task)
    await finish_while_away(server, web, path, task)
    async with connected(server) as peer:
        await peer.nothing_more()
        assert (await peer.authenticate(KEY, session))["connectionSessionUUID"] == session
        assert (await peer.receive_item())["taskUUID"] == task["taskUUID"]


async def test_connections_without_a_session_uuid_have_different_sessions(server: EmbeddedServer) -> None:
    async with connected(server, key=None) as first, connected(server, key=None) as second:
        sessions = [(await peer.authenticate())["connectionSessionUUID"] for peer in (first, second)]
        assert len(set(sessions)) == 2
        await first.nothing_more()
        await second.nothing_more()


class SlowLink:
    """A connection that takes its time to close."""

    codec = JSON
    base_url = "http://test"

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closing, self.may_close = asyncio.Event(), asyncio.Event()

    async def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def room(self, _size: int) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def confirm(self, _kept: int = 0) -> asyncio.Future[bool]:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.set_result(True)
        return answer

    async def close(self, code: int, reason: str) -> None:  # noqa: ARG002 - as Link has it
        self.closing.set()
        await self.may_close.wait()


async def test_nothing_is_sent_to_a_connection_before_its_greeting(
    server: EmbeddedServer, database: Database
) -> None:
    account = await database.run(account_named, "ada", 0.0)
    sessions = Sessions(database, server.services.results)
    old, new = SlowLink(), SlowLink()
    await sessions.attach(Login(account, None), "session", old)
    attaching = asyncio.create_task(sessions.attach(Login(account, None), "session", new))
    await old.closing.wait()
    await database.run(keep_undelivered, account, "session", 0.0, msgspec.msgpack.encode(["news"]))
    await sessions.deliver(account, "session")
    assert (old.sent, new.sent) == ([], []), "the old one is closing, the new one not greeted"
    old.may_close.set()
    await attaching
    await sessions.deliver(account, "session")
    assert new.sent == [b'["news"]']


async def test_outcomes_are_sent_once_each_though_the_clock_steps_back(
    server: EmbeddedServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await database.run(account_named, "ada", 0.0)
    sessions, link = Sessions(database, server.services.results, lambda: 50.0), SlowLink()
    await sessions.attach(Login(account, None), "session", link)
    await sessions.deliver(account, "session")
    attempt = accepted(database, account, 100.0, session="session")
    looked_for = await database.run(fail, attempt, FAILURE, 100.0)
    await sessions.deliver(account, "session")
    await sessions.settle(PATIENCE)  # until the client has confirmed it
    await sessions.deliver_outcome(looked_for)
    assert len(link.sent) == 1, "a look has found it"

    attempt = accepted(database, account, 50.0, session="session")
    await database.run(fail, attempt, FAILURE, 50.0)

    def fails_again(connection: Connection, of: AccountId, session: str) -> list[UndeliveredReply]:
        entries = undelivered(connection, of, session)
        again = Attempt.of(account, attempt.task_uuid)
        accept(connection, again, b"{}", session, 40.0)
        fail(connection, again, FAILURE, 40.0)
        return entries

    monkeypatch.setattr("server.delivery.sessions.undelivered", fails_again)
    await sessions.deliver(account, "session")
    assert len(link.sent) == 1, "what was found is there no more"
    monkeypatch.undo()
    await sessions.deliver(account, "session")
    assert len(link.sent) == 2

    attempt = accepted(database, account, 30.0, session="session")
    await sessions.deliver_outcome(await database.run(fail, attempt, FAILURE, 30.0))
    assert len(link.sent) == 3
    await sessions.close()


async def test_an_outcome_that_a_look_has_found_and_delivered_is_not_sent_again(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, task = server.services.sessions, upscale(base64.b64encode(make_image()).decode())
    deliver_outcome = sessions.deliver_outcome

    async def after_a_look(record: TaskRecord) -> None:
        await sessions.deliver(record.account, record.session)
        await sessions.settle(PATIENCE)  # until the client has confirmed it
        await deliver_outcome(record)

    async with connected(server) as peer:
        await peer.nothing_more()
        monkeypatch.setattr(sessions, "deliver_outcome", after_a_look)
        (result,) = await peer.ask(task)
        assert result["imageURL"]
        async with connected(server) as other:
            await other.finished(task["taskUUID"])
        await peer.nothing_more()
        (result,) = await peer.ask(upscale(base64.b64encode(make_image(seed=1)).decode()))
        assert result["imageURL"]
        await peer.nothing_more()


async def test_what_was_not_confirmed_comes_once_though_the_connection_authenticates_again(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.delivery.sessions._SETTLE_WITHIN", 0.01)
    monkeypatch.setattr(
        "server.connection.Connection.confirm", lambda *_: asyncio.get_running_loop().create_future()
    )
    session = new_uuid()
    async with connected(server, session=session) as peer:
        (result,) = await peer.ask(upscale(base64.b64encode(make_image()).decode()))
        assert result["imageURL"]
        assert (await peer.authenticate(session=session))["connectionSessionUUID"] == session
        await peer.nothing_more()


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_a_failure_whose_task_is_sent_again_while_it_is_being_sent_is_left_out(
    server: EmbeddedServer, web: Web, monkeypatch: pytest.MonkeyPatch, is_forgotten: bool
) -> None:
    session, account = new_uuid(), open_account(server)
    task, run = upscale(web.hold("/no-image", b"no image")), server.services.database.run
    async with connected(server, key=account.key, session=session) as peer:
        await peer.send(task)
        await web.receive()
        await peer.cut()
    web.release("/no-image")
    async with connected(server, key=account.key) as other:
        assert (await other.finished(task["taskUUID"]))["code"]
    again = Attempt.of(account.id, task["taskUUID"])

    def send_again(connection: Connection, of: AccountId, session: str) -> list[UndeliveredReply]:
        entries = undelivered(connection, of, session)
        if entries:
            record = find(connection, account.id, task["taskUUID"])
            assert record is not None
            accept(connection, again, record.encoded_request, None, 0.0, ServerId("another"))
            if is_forgotten:
                assert withdraw(connection, again, 0.0)
        return entries

    monkeypatch.setattr("server.delivery.sessions.undelivered", send_again)
    async with connected(server, key=account.key, session=session) as peer:
        await peer.nothing_more()
    await run(withdraw, again, 0.0)


async def test_an_answer_spells_the_uuid_as_the_question_does(server: EmbeddedServer) -> None:
    task = upscale(base64.b64encode(make_image()).decode())
    task["taskUUID"] = task["taskUUID"].upper()
    async with connected(server) as peer:
        (result,) = await peer.ask(task)
        assert result["taskUUID"] == task["taskUUID"]
        question = {"taskType": "getResponse", "taskUUID": task["taskUUID"].lower()}
        (answer,) = await peer.ask(question)
        assert answer["imageUUID"] == result["imageUUID"]


async def test_a_task_sent_again_in_capitals_is_the_same(server: EmbeddedServer) -> None:
    task = upscale(base64.b64encode(make_image()).decode())
    capitals = task | {"taskUUID": task["taskUUID"].upper()}
    async with connected(server) as peer:
        (first,) = await peer.ask(task)
        (again,) = await peer.ask(capitals)
    assert again == first | {"taskUUID": capitals["taskUUID"]}
