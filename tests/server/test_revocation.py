"""Keys that are revoked, by another process too, and keys of the settings that are taken out."""

import asyncio
import base64
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from server.settings import Settings
from server.state.accounts import create_key, revoke_key
from server.state.database import Database
from tests.server.conftest import StartServer
from tests.server.support.harness import PATIENCE, connected, make_image, new_uuid, open_account, upscale
from tests.server.support.web import Web


def elsewhere(data: Path) -> Database:
    """The database of a server, as another process opens it."""
    return Database(Settings(data=data).effective_database_url)


@pytest.mark.parametrize("messagepack", [False, True])
async def test_a_revoked_key_closes_its_connections_within_a_second_or_so_and_no_others(
    start_server: StartServer, tmp_path: Path, messagepack: bool
) -> None:
    server = start_server()
    account = open_account(server)
    with_another_key = server.services.database.run_sync(create_key, account.id, "other", time.time())
    database = elsewhere(tmp_path)
    async with (
        connected(server, key=account.key, messagepack=messagepack) as peer,
        connected(server, key=account.key) as second,
        connected(server, key=with_another_key) as other,
        connected(server) as configured,
    ):
        database.run_sync(revoke_key, account.key)
        async with asyncio.timeout(PATIENCE):
            for closing in (peer, second):
                with pytest.raises(ConnectionClosed):
                    await closing.socket.recv()
                assert (closing.socket.close_code, closing.socket.close_reason) == (
                    4001,
                    "the API key was revoked",
                )
        await other.nothing_more()
        await configured.nothing_more()
    async with connected(server, key=None) as again:
        assert (await again.authenticate(account.key))["code"] == "invalidApiKey"
    database.close()


async def test_what_a_revoked_key_began_is_finished_for_its_account(
    start_server: StartServer, tmp_path: Path, web: Web
) -> None:
    server = start_server(private_networks=True)
    account = open_account(server)
    with_another_key = server.services.database.run_sync(create_key, account.id, "other", time.time())
    task = upscale(web.hold("/slow.png", make_image()))
    database = elsewhere(tmp_path)
    async with connected(server, key=account.key) as peer, connected(server, key=with_another_key) as other:
        await peer.send(task)
        await web.receive()
        database.run_sync(revoke_key, account.key)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(peer.socket.recv(), PATIENCE)
        web.release("/slow.png")
        assert "imageURL" in await other.finished(task["taskUUID"])
    database.close()


async def test_a_configured_key_is_valid_no_more_once_it_is_taken_out_of_the_settings(
    start_server: StartServer,
) -> None:
    before = start_server(api_key="configured-before")
    async with connected(before, key="configured-before") as peer:
        image = base64.b64encode(make_image()).decode()
        (uploaded,) = await peer.ask({"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image})
    before.stop()
    after = start_server(api_key="configured-after")
    async with connected(after, key=None) as peer:
        assert (await peer.authenticate("configured-before"))["code"] == "invalidApiKey"
    async with connected(after, key="configured-after") as peer:  # of the same account
        (result,) = await peer.ask(upscale(uploaded["imageUUID"]))
        assert "imageURL" in result
