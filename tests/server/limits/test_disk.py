"""What an account keeps in the store is counted and bounded, however it came; what is refused is not kept."""

import base64
import math
import shutil
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import Connection, select

from server.limits.disk import stored_bytes_limit
from server.serving import EmbeddedServer
from server.settings import Settings
from server.state.accounts import AccountId
from server.state.audit import audit
from server.state.tables import accounts, images
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    Account,
    Item,
    connected,
    make_image,
    new_uuid,
    open_account,
    upscale,
)
from tests.server.support.web import Web

pytestmark = pytest.mark.each_database


def stored(server: EmbeddedServer, account: AccountId) -> int:
    """Bytes that are counted as an account's."""
    query = accounts.select().where(accounts.c.id == account)
    return int(server.services.database.run_sync(lambda connection: connection.execute(query).one()).stored)


def files(server: EmbeddedServer) -> list[int]:
    """The sizes of the files in the store."""
    folder = Path(server.services.settings.data) / "images"
    return sorted(file.stat().st_size for file in folder.rglob("*.png"))


def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()


def upload(image: str) -> Item:
    return {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image}


def media(image: str) -> Item:
    return {"taskType": "mediaStorage", "taskUUID": new_uuid(), "operation": "upload", "media": image}


async def by_socket(server: EmbeddedServer, account: Account, task: Item) -> Item:
    async with connected(server, key=account.key) as peer:
        (item,) = await peer.ask(task)
    return item


@pytest.mark.parametrize("way", ["inline", "imageUpload", "mediaStorage", "URL", "URL of an upload", "form"])
async def test_every_way_in_counts_alike(start_server: StartServer, web: Web, way: str) -> None:
    first, second = (make_image(60, 40, seed=seed) for seed in (1, 2))
    server = start_server(max_stored_bytes=len(first) + len(second) - 1, private_networks=True)
    account = open_account(server)
    await by_socket(server, account, upload(encoded(first)))
    assert stored(server, account.id) == len(first)
    web.files["/second.png"] = second
    url = f"{web.url}/second.png"
    match way:
        case "inline":
            error = await by_socket(server, account, upscale(encoded(second)))
        case "imageUpload":
            error = await by_socket(server, account, upload(encoded(second)))
        case "mediaStorage":
            error = await by_socket(server, account, media(encoded(second)))
        case "URL":
            error = await by_socket(server, account, upscale(url))
        case "URL of an upload":
            error = await by_socket(server, account, upload(url))
        case _:
            error = await by_form(server, account, second)
    assert error.get("code", error.get("name")) in ("storageQuotaExceeded", "rate_limit_exceeded"), error
    assert stored(server, account.id) == len(first)
    assert files(server) == [len(first)]
    assert server.services.database.snapshot(audit).mistakes == []


async def by_form(server: EmbeddedServer, account: Account, image: bytes) -> Item:
    """Another service's shape: Stability's."""
    form = aiohttp.FormData()
    form.add_field("image", image, filename="a.png", content_type="image/png")
    url = f"{server.url}/v2beta/stable-image/upscale/fast"
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {account.key}"}) as session,
        session.post(url, data=form) as response,
    ):
        item: Item = await response.json(content_type=None)
        assert response.status == 429, item
    return item


async def test_results_count_too_and_one_for_which_there_is_no_room_costs_nothing(
    start_server: StartServer,
) -> None:
    image = make_image(60, 40)
    server = start_server(max_stored_bytes=len(image) + 10)
    account = open_account(server, credit=Decimal(1))
    for _ in range(2):
        error = await by_socket(server, account, upscale(encoded(image)))
        assert error["code"] == "storageQuotaExceeded"
    assert files(server) == [len(image)], "the result is not left behind"
    assert server.services.database.snapshot(audit).mistakes == []
    async with connected(server, key=account.key) as peer:
        (me,) = await peer.ask(
            {"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "getDetails"}
        )
    assert me["balance"]["amount"] == 1


async def test_what_is_deleted_makes_room(start_server: StartServer) -> None:
    first, second = (make_image(60, 40, seed=seed) for seed in (1, 2))
    server = start_server(max_stored_bytes=len(first) + len(second) - 1)
    account = open_account(server)
    kept = await by_socket(server, account, upload(encoded(first)))
    delete = media(kept["imageUUID"]) | {"operation": "delete"}
    assert (await by_socket(server, account, delete))["operation"] == "delete"
    assert "imageUUID" in await by_socket(server, account, upload(encoded(second)))
    assert stored(server, account.id) == len(second)


async def test_refused_tasks_keep_no_input(start_server: StartServer) -> None:
    server = start_server()
    account = open_account(server, credit=Decimal(0))
    pictures = [make_image(60, 40, seed=seed) for seed in range(10)]
    async with connected(server, key=account.key) as peer:
        errors = await peer.ask(*(upscale(encoded(image)) for image in pictures))
    assert {error["code"] for error in errors} == {"insufficientCredits"}
    assert stored(server, account.id) == 0
    assert files(server) == []


async def test_of_tasks_together_those_that_can_be_paid_keep_their_inputs(start_server: StartServer) -> None:
    server = start_server()
    rich = open_account(server)
    pictures = [make_image(60, 40, seed=seed) for seed in range(10)]
    priced = await by_socket(server, rich, upscale(encoded(pictures[0]), includeCost=True))
    account = open_account(server, credit=Decimal(str(priced["cost"])) * 2)
    async with connected(server, key=account.key) as peer:
        items = await peer.ask(*(upscale(encoded(image)) for image in pictures))
    paid = [image for image, item in zip(pictures, items, strict=True) if "imageURL" in item]
    assert len(paid) == 2
    results = server.services.database.run_sync(_sizes, account.id)
    assert len(results) == 4
    assert sum(results) == stored(server, account.id)
    assert server.services.database.snapshot(audit).mistakes == []


def _sizes(connection: Connection, account: AccountId) -> list[int]:
    return list(connection.scalars(select(images.c.size).where(images.c.account_id == account)))


async def test_an_input_that_others_use_stays_though_a_task_with_it_is_refused(
    start_server: StartServer,
) -> None:
    server = start_server()
    account = open_account(server)
    image, other = (encoded(make_image(60, 40, seed=seed)) for seed in (1, 2))
    first = upscale(image)
    kept = await by_socket(server, account, upload(other))
    assert "imageURL" in await by_socket(server, account, first)
    before = stored(server, account.id)
    for again in (other, encoded(make_image(60, 40, seed=3))):
        refused = first | {"inputs": {"image": again}}
        assert (await by_socket(server, account, refused))["code"] == "conflictTaskUUID"
    assert stored(server, account.id) == before
    assert "imageURL" in await by_socket(server, account, upscale(kept["imageUUID"]))


async def test_images_are_kept_no_longer_than_the_server_allows(start_server: StartServer) -> None:
    server = start_server(max_image_ttl=100, image_ttl=50)
    account = open_account(server)
    image = encoded(make_image(60, 40))
    for task in (upscale(image, ttl=101), upload(image) | {"ttl": 101}):
        error = await by_socket(server, account, task)
        assert (error["code"], error["parameter"]) == ("invalidTtl", "ttl")
        assert "100 seconds" in error["message"]
    assert "imageURL" in await by_socket(server, account, upscale(image, ttl=100))


def test_without_a_setting_an_account_has_a_quarter_of_the_disk(tmp_path: Path) -> None:
    total = shutil.disk_usage(tmp_path).total
    assert math.isclose(stored_bytes_limit(Settings(data=tmp_path)), total / 4, rel_tol=1e-6)
    assert stored_bytes_limit(Settings(data=tmp_path, storage_url="s3://bucket")) == 2**40
    assert stored_bytes_limit(Settings(data=tmp_path, max_stored_bytes=7)) == 7
