"""Images in S3: everything works as with a local directory, and clients may get them from there."""

import base64
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import update

from server.errors import StartError
from server.serving import EmbeddedServer
from server.state.tables import images as images_table
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    Item,
    charges,
    connected,
    make_image,
    name_of,
    new_uuid,
    open_account,
    open_image,
    request,
    until,
    upload,
    upscale,
)
from tests.server.support.s3 import BUCKET, S3, running_s3

URL = f"s3://{BUCKET}/tile/wire"
DATA = make_image(40, 30, seed=1)


@pytest.fixture(scope="module")
def running() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture
def s3(running: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An S3 server with an empty bucket, whose credentials are in the environment."""
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    running.empty()
    running.ahead = 0
    return running


async def is_ready(server: EmbeddedServer) -> bool:
    return (await request(f"{server.url}/readyz")).status == 200


async def set_expiry(server: EmbeddedServer, item: Item, expires: float) -> None:
    change = update(images_table).where(images_table.c.uuid == item["imageUUID"]).values(expires=expires)
    await server.services.database.run(lambda connection: connection.execute(change).rowcount)


async def test_uploads_and_results_are_objects_under_the_prefix_with_their_types(
    start_server: StartServer, s3: S3
) -> None:
    server = start_server(storage_url=URL)
    uploaded = await upload(server, DATA, ttl=1000)
    async with connected(server) as peer:
        (result,) = await peer.ask(upscale(uploaded["imageUUID"], outputFormat="WEBP"))
    keys = {f"tile/wire/{name_of(item)}" for item in (uploaded, result)}
    assert s3.keys() == keys | {"tile/wire/readiness"}
    kept = s3.object(f"tile/wire/{name_of(uploaded)}")
    assert (kept["Body"].read(), kept["ContentType"]) == (DATA, "image/png")
    assert kept["CacheControl"] == "private, max-age=1000, immutable"
    kept = s3.object(f"tile/wire/{name_of(result)}")
    assert kept["ContentType"] == "image/webp"
    assert open_image(kept["Body"].read()).size == (80, 60)


async def test_images_are_served_in_whole_and_in_part(start_server: StartServer, s3: S3) -> None:
    server = start_server(storage_url=URL)
    url = (await upload(server, DATA))["imageURL"]
    assert url.startswith(server.url)
    whole, head = await request(url), await request(url, "HEAD")
    assert (whole.status, whole.body) == (200, DATA)
    assert (head.status, head.headers["content-length"]) == (200, str(len(DATA)))
    part = await request(url, range="bytes=10-19")
    assert (part.status, part.body) == (206, DATA[10:20])
    assert (await request(url, range="bytes=-7")).body == DATA[-7:]
    assert (await request(url, range=f"bytes={len(DATA)}-")).status == 416


async def test_large_images_go_in_parts_and_come_back_whole(start_server: StartServer, s3: S3) -> None:
    server = start_server(storage_url=URL)
    data = make_image(8, 8, "BMP") + bytes(range(256)) * 2**15  # 8 MiB; decoders do not mind what follows
    url = (await upload(server, data))["imageURL"]
    reply = await request(url)
    assert (reply.headers["content-length"], reply.body == data) == (str(len(data)), True)


async def test_a_restarted_server_has_the_images(start_server: StartServer, s3: S3) -> None:
    first = start_server(storage_url=URL)
    uploaded = await upload(first, DATA)
    first.stop()
    second = start_server(storage_url=URL)
    assert (await request(f"{second.url}/images/{name_of(uploaded)}")).body == DATA
    async with connected(second) as peer:
        (result,) = await peer.ask(upscale(uploaded["imageUUID"]))
    assert "imageURL" in result


async def test_the_sweeper_deletes_what_has_expired(start_server: StartServer, s3: S3) -> None:
    server = start_server(storage_url=URL)
    gone, lost, kept = [await upload(server, make_image(seed=seed)) for seed in (1, 2, 3)]
    s3.client.delete_object(Bucket=BUCKET, Key=f"tile/wire/{name_of(lost)}")
    for item in (gone, lost):
        await set_expiry(server, item, 1.0)
    await server.services.images.sweep()
    assert s3.keys() == {f"tile/wire/{name_of(kept)}", "tile/wire/readiness"}


async def test_an_object_that_vanished_is_not_found(start_server: StartServer, s3: S3) -> None:
    server = start_server(storage_url=URL)
    uploaded = await upload(server, DATA)
    for _ in range(2):
        server.services.images.forget_unread()
    s3.client.delete_object(Bucket=BUCKET, Key=f"tile/wire/{name_of(uploaded)}")
    for method in ("GET", "HEAD"):
        assert (await request(uploaded["imageURL"], method)).status == 404
    async with connected(server) as peer:
        (error,) = await peer.ask(upscale(uploaded["imageUUID"]))
    assert error["code"] == "imageExpired"


async def test_while_the_store_is_away_tasks_cost_nothing_and_later_all_is_well(
    start_server: StartServer, s3: S3
) -> None:
    server = start_server(storage_url=URL)
    account = open_account(server)
    async with connected(server, key=account.key) as peer:
        image = {"taskType": "imageUpload", "image": base64.b64encode(DATA).decode()}
        (uploaded,) = await peer.ask(image | {"taskUUID": new_uuid()})
        s3.stop()
        try:
            other = base64.b64encode(make_image(seed=2)).decode()
            for task in (upscale(uploaded["imageUUID"]), image | {"taskUUID": new_uuid(), "image": other}):
                (error,) = await peer.ask(task)
                assert (error["code"], error["retryAfter"]) == ("serviceUnavailable", 10)
                assert error["message"] == "the image store cannot be used"
            assert (await request(uploaded["imageURL"])).status == 503
            ready = await request(f"{server.url}/readyz")
            assert (ready.status, ready.body) == (503, b"the image store cannot be used\n")
            assert charges(server, account.id) == (0, 0)
        finally:
            s3.start()
        await until(lambda: is_ready(server))
        assert (await request(uploaded["imageURL"])).body == DATA
        (result,) = await peer.ask(upscale(uploaded["imageUUID"]))
        assert "imageURL" in result
    assert charges(server, account.id)[1] == 1


async def test_a_bucket_that_was_deleted_is_a_store_that_cannot_be_used(
    start_server: StartServer, s3: S3
) -> None:
    server = start_server(storage_url=URL)
    s3.empty()
    s3.client.delete_bucket(Bucket=BUCKET)
    try:
        assert (await upload(server, DATA))["code"] == "serviceUnavailable"
        assert (await request(f"{server.url}/readyz")).status == 503
    finally:
        s3.client.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
    await until(lambda: is_ready(server))
    assert "imageURL" in await upload(server, DATA)


@pytest.mark.parametrize(
    ("url", "changes", "reason"),
    [
        ("s3://no-such-bucket", {}, r"The specified bucket does not exist \(NoSuchBucket\)"),
        (URL, {"AWS_ACCESS_KEY_ID": "somebody"}, r"This request is refused\. \(InvalidAccessKeyId\)"),
        (
            URL,
            {"AWS_ALLOW_HTTP": "false"},
            "its endpoint is http, not https; AWS_ALLOW_HTTP=true allows that",
        ),
        (URL, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Generic S3 error: .*error sending request"),
        ("ftp://files", {}, 'Generic URL error: Unable to recognise URL "ftp://files/"'),
        ("pictures", {}, "relative URL without a base"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_at_the_start(
    start_server: StartServer,
    s3: S3,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    changes: dict[str, str],
    reason: str,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StartError, match=f"^the image store.* cannot be used: {reason}$"):
        start_server(storage_url=url)


async def test_presigned_urls_lead_to_the_store_for_as_long_as_the_image_is_kept(
    start_server: StartServer, s3: S3
) -> None:
    server = start_server(storage_url=URL, image_urls="presigned", max_image_ttl=90 * 86400)
    uploaded = await upload(server, DATA, ttl=600)
    async with connected(server) as peer:
        (result,) = await peer.ask(upscale(uploaded["imageUUID"], ttl=90 * 86400))
    for item, lifetime in ((uploaded, 600), (result, 7 * 86400)):
        assert item["imageURL"].startswith(f"{s3.url}/{BUCKET}/tile/wire/")
        (seconds,) = parse_qs(urlsplit(item["imageURL"]).query)["X-Amz-Expires"]
        assert lifetime - 60 < int(seconds) <= lifetime
    reply = await request(uploaded["imageURL"])
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, DATA, "image/png")
    reply = await request(result["imageURL"])
    assert open_image(reply.body).size == (80, 60)
    assert (await request(f"{server.url}/images/{name_of(result)}")).body == reply.body


async def test_presigned_urls_cannot_be_changed(start_server: StartServer, s3: S3) -> None:
    server = start_server(storage_url=URL, image_urls="presigned")
    item, other = await upload(server, DATA), await upload(server, make_image(seed=9))
    url = item["imageURL"]
    assert (await request(url)).status == 200
    longer = url.replace("X-Amz-Expires=", "X-Amz-Expires=1")
    for changed in (url.partition("?")[0], url.replace(name_of(item), name_of(other)), longer, url[:-1]):
        assert (await request(changed)).status == 403
    assert (await request(url, "PUT")).status == 403


async def test_a_presigned_url_ends_with_its_image_and_a_result_told_again_has_a_new_one(
    start_server: StartServer, s3: S3
) -> None:
    server = start_server(storage_url=URL, image_urls="presigned")
    session = new_uuid()
    async with connected(server, session=session) as peer:
        task = upscale(base64.b64encode(DATA).decode())
        (result,) = await peer.ask(task)
        await set_expiry(server, result, time.time() + 300)
        (soon_over,) = await peer.ask(task)
        (seconds,) = parse_qs(urlsplit(soon_over["imageURL"]).query)["X-Amz-Expires"]
        assert 200 < int(seconds) <= 300
        await set_expiry(server, result, time.time() + 1000)
        again = await peer.finished(task["taskUUID"])
        assert again["imageURL"] != soon_over["imageURL"]
        s3.ahead = 301
        assert (await request(soon_over["imageURL"])).status == 403
        assert (await request(again["imageURL"])).status == 200
        await set_expiry(server, result, 1.0)
        (error,) = await peer.ask({"taskType": "getResponse", "taskUUID": task["taskUUID"]})
        assert error["code"] == "imageExpired"


@pytest.mark.parametrize("url", [None, "memory:///"])
def test_what_cannot_sign_urls_is_not_started_with(start_server: StartServer, url: str | None) -> None:
    sentence = "^image_urls: presigned needs a storage_url of S3, GCS or Azure$"
    with pytest.raises(StartError, match=sentence):
        start_server(storage_url=url, image_urls="presigned")
