"""Tokens for web pages: what they allow, how long, and how much of it; on every server of a database."""

import asyncio
import base64
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpcore
import pytest
from websockets.exceptions import ConnectionClosed

from server.serving import EmbeddedServer
from server.settings import Settings
from server.state.accounts import create_key, revoke_key
from server.state.database import Database
from server.state.tables import tokens
from tests.server.conftest import StartServer, Tilewire
from tests.server.support.harness import (
    FAST_MODEL,
    KEY,
    PATIENCE,
    Account,
    Item,
    Peer,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_socket,
    until,
    upscale,
)
from tests.server.support.web import Web

pytestmark = [pytest.mark.each_database, pytest.mark.settings(private_networks=True)]

SHOP, OTHER = "https://shop.example", "https://other.example"
IMAGE = base64.b64encode(make_image()).decode()


def ask_for_token(server: EmbeddedServer, key: str = KEY, **wanted: Any) -> tuple[int, Any]:
    """The status and the body of the answer to a POST to `/v1/tokens`."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = httpcore.request(
        "POST", f"{server.url}/v1/tokens", headers=headers, content=json.dumps(wanted).encode()
    )
    return response.status, json.loads(response.content)


def make_token(server: EmbeddedServer, key: str = KEY, **wanted: Any) -> str:
    status, made = ask_for_token(server, key, **wanted)
    assert status == 201, made
    return str(made["token"])


def post(server: EmbeddedServer, token: str, *tasks: Item, **headers: str) -> tuple[int, Any]:
    sent = {"Authorization": f"Bearer {token}", **headers}
    response = httpcore.request("POST", f"{server.url}/v1", headers=sent, content=json.dumps(tasks).encode())
    return response.status, json.loads(response.content)


def error_of(server: EmbeddedServer, token: str, task: Item) -> Item:
    _, answer = post(server, token, {"taskUUID": new_uuid(), **task})
    (error,) = answer["errors"]
    assert isinstance(error, dict)
    return error


def code_of(server: EmbeddedServer, token: str, task: Item) -> str:
    return str(error_of(server, token, task)["code"])


async def resume(peer: Peer, token: str, previous: str, session: str) -> Item:
    names = {"apiKey": token, "previousApiKey": previous, "connectionSessionUUID": session}
    await peer.send({"taskType": "authentication", **names})
    return await peer.receive_item()


async def test_a_token_upscales_and_sees_its_own_tasks_and_the_models(server: EmbeddedServer) -> None:
    token = make_token(server)
    async with connected(server, key=None) as peer:
        assert 590 <= (await peer.authenticate(token))["expiresIn"] <= 600
        (uploaded,) = await peer.ask({"taskType": "imageUpload", "taskUUID": new_uuid(), "image": IMAGE})
        task = upscale(uploaded["imageUUID"], includeCost=True)
        (result,) = await peer.ask(task)
        assert "imageURL" in result
        (again,) = await peer.ask({"taskType": "getResponse", "taskUUID": task["taskUUID"]})
        assert again["imageUUID"] == result["imageUUID"]
        (models,) = await peer.ask({"taskType": "modelSearch", "taskUUID": new_uuid()})
        assert models["totalResults"] > 1
        (larger,) = await peer.ask(upscale(result["imageUUID"]))  # its own result
        assert "imageURL" in larger


@pytest.mark.parametrize(
    "task",
    [
        {"taskType": "accountManagement", "operation": "getDetails"},
        upscale(IMAGE, webhookURL="https://shop.example/hook"),
        upscale(IMAGE, uploadEndpoint="https://shop.example/put"),
        {"taskType": "mediaStorage", "operation": "delete", "media": new_uuid()},
    ],
)
async def test_a_token_does_nothing_that_is_the_accounts_affair(server: EmbeddedServer, task: Item) -> None:
    token = make_token(server)
    error = error_of(server, token, task)
    assert error["code"] == "tokenScopeApiKey"
    assert error["message"].endswith("use a key")
    for name in ("webhookURL", "uploadEndpoint"):
        if name in task:
            assert error["parameter"] == name


async def test_a_token_makes_no_token_and_sees_no_balance_by_any_services_way_of_giving_a_key(
    server: EmbeddedServer,
) -> None:
    token = make_token(server)
    status, answer = ask_for_token(server, token)
    assert (status, answer["errors"][0]["code"]) == (403, "tokenScopeApiKey")
    half = base64.b64encode(f"api:{token}".encode()).decode()
    for path, headers in (
        ("/v1/user/balance", {"Authorization": f"Bearer {token}"}),
        ("/v1/user/account", {"Authorization": token}),
        ("/v3/user", {"Authorization": f"Basic {half}"}),
    ):
        assert httpcore.request("GET", server.url + path, headers=headers).status == 403, path
    for path, headers in (
        ("/v1/engines/list", {"Authorization": f"Bearer {token}"}),
        ("/sdapi/v1/upscalers", {"Authorization": f"Basic {half}"}),
        ("/v1/engines/list", {"x-photio-key": token}),
        ("/v1/engines/list", {"Authorization": token}),
    ):
        assert httpcore.request("GET", server.url + path, headers=headers).status == 200, path


async def test_one_token_sees_nothing_of_another_and_the_key_sees_all(
    server: EmbeddedServer, web: Web
) -> None:
    account = open_account(server)
    mine, theirs = make_token(server, account.key), make_token(server, account.key)
    done, running = upscale(IMAGE), upscale(web.hold("/slow.png", make_image(seed=3)))
    async with connected(server, key=mine, session="shared") as peer:
        (result,) = await peer.ask(done)
        await peer.send(running)
        await web.receive()
        for task in (done, running):
            for kind in ("getResponse", "getTaskDetails"):
                question = {"taskType": kind, "taskUUID": task["taskUUID"]}
                assert code_of(server, theirs, question) == "taskNotFound"
                _, seen = post(server, account.key, question)
                assert "data" in seen
            assert code_of(server, theirs, task) == "conflictTaskUUID"
        cancel = {"taskType": "cancel", "targetTaskUUID": running["taskUUID"]}
        assert code_of(server, theirs, cancel) == "taskNotFound"
        assert code_of(server, theirs, upscale(result["imageUUID"])) == "imageNotFound"
        async with connected(server, key=theirs, session="shared") as other:  # takes over no session
            await peer.nothing_more()
            (same,) = await other.ask({"taskType": "imageUpload", "taskUUID": new_uuid(), "image": IMAGE})
        (own,) = await peer.ask({"taskType": "imageUpload", "taskUUID": new_uuid(), "image": IMAGE})
        assert same["imageUUID"] != own["imageUUID"]
        web.release("/slow.png")
        assert (await peer.receive_item())["taskUUID"] == running["taskUUID"]


async def test_a_stream_of_one_token_is_none_of_anothers_of_the_same_name(
    server: EmbeddedServer, web: Web
) -> None:
    def frame(image: str, number: int, **more: Any) -> Item:
        return upscale(image, sequence={"name": "camera", "number": number, "inFlight": 1, **more})

    account = open_account(server)
    mine, theirs = make_token(server, account.key), make_token(server, account.key)
    first, second = frame(web.hold("/frame.png", make_image(seed=5)), 0), frame(IMAGE, 1)
    async with connected(server, key=mine) as peer, connected(server, key=theirs) as other:
        await peer.send(first, second)
        await web.receive()
        assert "imageURL" in (await other.ask(frame(IMAGE, 9, latest=True)))[0]
        web.release("/frame.png")
        for task in (first, second):
            item = await peer.receive_item()
            assert (item["taskUUID"], "imageURL" in item) == (task["taskUUID"], True)


async def test_an_expired_token_begins_nothing_and_what_it_began_reaches_it_and_its_successor(
    server: EmbeddedServer, web: Web
) -> None:
    token = make_token(server, expiresIn=1)
    first, second = (upscale(web.hold(f"/{name}.png", make_image(seed=4))) for name in "ab")
    async with connected(server, key=None) as peer:
        session = (await peer.authenticate(token))["connectionSessionUUID"]
        await peer.send(first, second)
        await web.receive()
        await web.receive()
        await until(lambda: post(server, token, {"taskType": "ping"})[0] == 401)
        (refused,) = await peer.ask({"taskType": "modelSearch", "taskUUID": new_uuid()})
        assert refused["code"] == "tokenExpiredApiKey"
        web.release("/a.png")
        assert (await peer.receive_item())["taskUUID"] == first["taskUUID"]
        await peer.cut()
    web.release("/b.png")
    async with connected(server, key=None) as peer:
        assert (await peer.authenticate(token, session))["code"] == "tokenExpiredApiKey"
    async with connected(server, key=None) as peer:
        new = make_token(server)
        assert (await resume(peer, new, token, session))["connectionSessionUUID"] == session
        assert (await peer.finished(second["taskUUID"]))["taskUUID"] == second["taskUUID"]
    async with connected(server, key=None) as peer:
        late = await resume(peer, make_token(server), "twt_" + 43 * "x", session)
        assert (late["code"], late["parameter"]) == ("invalidPreviousApiKey", "previousApiKey")
    async with connected(server, key=None) as peer:
        used = make_token(server)
        await peer.authenticate(used)
        assert (await resume(peer, used, token, session))["code"] == "invalidPreviousApiKey"


async def test_limits_are_exact_under_a_hundred_tasks_at_once(server: EmbeddedServer) -> None:
    account = open_account(server, Decimal(10))
    price = await price_of_one(server, account)
    before = charges(server, account.id)
    for code, wanted in (
        ("tokenQuotaExceeded", {"maxTasks": 7}),
        ("tokenInsufficientCredits", {"maxCost": float(7 * price)}),
    ):
        token = make_token(server, account.key, **wanted)
        async with connected(server, key=token) as peer:
            replies = await peer.ask(*(upscale(IMAGE) for _ in range(100)))
        assert sorted(reply.get("code", "done") for reply in replies) == sorted(7 * ["done"] + 93 * [code])
    charged, count = (now - then for now, then in zip(charges(server, account.id), before, strict=True))
    assert (charged, count) == (14 * int(price * 10**9), 14)


async def price_of_one(server: EmbeddedServer, account: Account) -> Decimal:
    async with connected(server, key=account.key) as peer:
        (result,) = await peer.ask(upscale(IMAGE, includeCost=True))
    return Decimal(str(result["cost"]))


async def test_a_task_that_fails_gives_its_cost_back_and_one_that_is_sent_again_counts_once(
    server: EmbeddedServer, web: Web
) -> None:
    account = open_account(server, Decimal(10))
    price = float(await price_of_one(server, account))
    for terms, code in (
        ({"maxCost": price}, "tokenInsufficientCredits"),
        ({"maxTasks": 2}, "tokenQuotaExceeded"),
    ):
        async with connected(server, key=make_token(server, account.key, **terms)) as peer:
            assert (await peer.ask(upscale(f"{web.url}/none.png")))[0]["code"] == "downloadFailed"
            task = upscale(IMAGE)
            for _ in range(3):
                assert "imageURL" in (await peer.ask(task))[0]
            assert (await peer.ask(upscale(IMAGE)))[0]["code"] == code


async def test_the_models_and_the_size_of_results_are_limited(server: EmbeddedServer) -> None:
    token = make_token(server, models=["fast"], maxMegapixels=0.001)
    wrong = error_of(server, token, upscale(IMAGE, model="runware:504@1"))
    assert wrong["code"] == "unsupportedModel"
    assert FAST_MODEL in wrong["message"]
    large = error_of(server, token, upscale(IMAGE))  # 48 × 32
    assert large["code"] == "invalidUpscaleFactor"
    assert "maxMegapixels of the token" in large["message"]
    plain = upscale(base64.b64encode(make_image(12, 8)).decode())
    for left_out in ("model", "upscaleFactor"):  # the first of its models, as large as it may be
        del plain[left_out]
    _, answer = post(server, token, plain)
    assert "imageURL" in answer["data"][0]
    _, found = post(server, token, {"taskType": "modelSearch", "taskUUID": new_uuid()})
    assert [model["name"] for model in found["data"][0]["results"]] == [FAST_MODEL]


async def test_only_pages_of_the_allowed_origins_can_use_it(server: EmbeddedServer) -> None:
    token = make_token(server, allowedOrigins=[SHOP])
    search = {"taskType": "modelSearch", "taskUUID": new_uuid()}
    for origin, status in ((SHOP, 200), (OTHER, 403), (None, 403)):
        assert post(server, token, search, **({"Origin": origin} if origin else {}))[0] == status
        headers = {"Origin": origin} if origin else {}
        async with open_socket(server, additional_headers=headers) as socket:
            answer = await Peer(socket).authenticate(token)
            assert answer.get("code", "welcome") == ("welcome" if status == 200 else "tokenOriginApiKey")
    assert (
        httpcore.request(
            "GET",
            f"{server.url}/v1/engines/list",
            headers={"Authorization": f"Bearer {token}", "Origin": SHOP},
        ).status
        == 200
    )


@pytest.mark.parametrize(
    ("wanted", "parameter"),
    [
        ({"expiresIn": 86401}, "expiresIn"),
        ({"expiresIn": "600"}, "expiresIn"),
        ({"maxTasks": 0}, "maxTasks"),
        ({"maxCost": -1}, "maxCost"),
        ({"maxCost": 1e-12}, "maxCost"),
        ({"maxMegapixels": 0}, "maxMegapixels"),
        ({"models": ["none"]}, "models"),
        ({"allowedOrigins": ["shop.example"]}, "allowedOrigins"),
        ({"maxtasks": 3}, None),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    server: EmbeddedServer, wanted: Item, parameter: str | None
) -> None:
    status, answer = ask_for_token(server, **wanted)
    (error,) = answer["errors"]
    assert status == 400
    assert parameter is None or error["parameter"] == parameter


def test_without_a_valid_key_there_is_no_token(server: EmbeddedServer) -> None:
    for key, code in (("", "missingApiKey"), ("tw_wrong", "invalidApiKey")):
        status, answer = ask_for_token(server, key)
        assert (status, answer["errors"][0]["code"]) == (401, code)


async def test_only_a_hash_of_a_token_is_kept(server: EmbeddedServer) -> None:
    token = make_token(server, maxCost=1.5)
    rows = server.services.database.run_sync(lambda connection: connection.execute(tokens.select()).all())
    assert not any(token in repr(row) or token[4:].encode() in repr(row).encode() for row in rows)


async def test_a_token_is_valid_on_every_server_and_ends_with_its_key(
    start_server: StartServer, tmp_path: Path, server_database: str | None
) -> None:
    first, second = start_server(), start_server()
    account = open_account(first)
    token = make_token(first, account.key, maxTasks=3)
    async with connected(first, key=token) as one, connected(second, key=token) as two:
        tasks = [upscale(IMAGE) for _ in range(8)]
        replies = await asyncio.gather(one.ask(*tasks[:4]), two.ask(*tasks[4:]))
        assert sum("imageURL" in reply for some in replies for reply in some) == 3
        database = Database(server_database or Settings(data=tmp_path).effective_database_url)
        database.run_sync(revoke_key, account.key)
        database.close()
        for peer in (one, two):
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(peer.socket.recv(), PATIENCE)
            assert peer.socket.close_code == 4001
    for server in (first, second):
        assert post(server, token, {"taskType": "ping"})[0] == 401


def test_a_token_ends_no_later_than_its_key(server: EmbeddedServer) -> None:
    account, now = open_account(server), time.time()
    key = server.services.database.run_sync(create_key, account.id, "short", now, expires=now + 5)
    _, made = ask_for_token(server, key)
    assert time.strptime(made["expiresAt"][:19], "%Y-%m-%dT%H:%M:%S") <= time.gmtime(now + 6)


async def test_the_command_makes_a_token_with_the_key_or_the_beginning_of_its_id(
    start_server: StartServer, tilewire: Tilewire, tmp_path: Path, server_database: str | None
) -> None:
    server = start_server()
    account = open_account(server)
    more = {"TILEWIRE_DATA": str(tmp_path)}
    if server_database:
        more["TILEWIRE_DATABASE_URL"] = server_database
    made = tilewire("keys", "token", account.key, "--model", "fast", "--max-tasks", 1, **more)
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    assert token.startswith("twt_")
    async with connected(server, key=token) as peer:
        assert "imageURL" in (await peer.ask(upscale(IMAGE)))[0]
        assert (await peer.ask(upscale(IMAGE)))[0]["code"] == "tokenQuotaExceeded"
    wrong = tilewire("keys", "token", account.key, "--model", "none", **more)
    assert wrong.exit_code != 0
    assert "none" in wrong.output
    assert tilewire("keys", "token", "tw_wrong", **more).exit_code != 0
    long = tilewire("keys", "token", account.key, "--expires", "2d", **more)
    assert (long.exit_code, long.stderr) == (2, "--expires: a token is valid for a day at most\n")
    none = tilewire("keys", "token", account.key, "--max-tasks", 0, **more)
    assert none.stderr.startswith("--max-tasks: ")
