"""Keys are in no log, whatever the level, and in no answer."""

import asyncio
import logging

import httpcore
import pytest
from websockets.asyncio.client import connect

from tests.server.conftest import StartServer
from tests.server.support.harness import PATIENCE, Peer, new_uuid, open_account, socket_url

WRONG = "tw_wrong-key-0123456789"


def test_neither_right_nor_wrong_keys_are_logged_or_told(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = start_server(log_level="debug")
    key = open_account(server).key
    told: list[str] = []

    async def live() -> None:
        quiet = logging.Logger("the client's own")  # caplog would hold what the client logs of itself
        url = f"{socket_url(server)}?apiKey={WRONG}"
        for secret in (key, WRONG):
            async with connect(url, open_timeout=PATIENCE, logger=quiet) as socket:
                peer = Peer(socket)
                told.append(str(await peer.authenticate(secret)))
                if secret == key:
                    await peer.send({"taskType": "steal", "taskUUID": new_uuid(), "apiKey": secret})
                    told.append(str(await peer.receive_item()))
                    account = {"taskType": "accountManagement", "taskUUID": new_uuid()}
                    await peer.send(account | {"operation": "getDetails"})
                    told.append(str(await peer.receive_item()))
            async with httpcore.AsyncConnectionPool() as pool:
                for body in (b"[]", b"nonsense", b'[{"taskType":"authentication","apiKey":1}]'):
                    response = await pool.request(
                        "POST",
                        f"{server.url}/v1?apiKey={secret}",
                        headers={"Authorization": f"Bearer {secret}"},
                        content=body,
                    )
                    told.append(f"{response.headers} {response.content!r}")

    asyncio.run(live())
    server.stop()
    logged = "\n".join(
        f"{record.name} {record.getMessage()} {record.exc_text} {record.args}"
        for record in caplog.records
        if not record.name.startswith("httpcore")  # the client of this test
    )
    assert "server" in logged or "uvicorn" in logged or logged == ""
    for secret in (key, WRONG):
        assert secret not in logged
        assert secret not in "\n".join(told)
