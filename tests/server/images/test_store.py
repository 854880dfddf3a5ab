"""Images over HTTP, and how long they stay."""

import asyncio
import base64
import re
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from sqlalchemy import Connection, update

from server.images.bucket import Bucket, open_store
from server.images.store import Draft, ImageFile, ImageStore
from server.protocol.errors import QuotaError
from server.serving import EmbeddedServer
from server.state import images as images_state
from server.state.accounts import AccountId, account_named
from server.state.database import Database
from server.state.images import NO_LIMIT, Recorded, record_input
from server.state.loose_files import condemned, note_loose
from server.state.tables import images as images_table
from tests.server.images.conftest import Clock
from tests.server.support.harness import (
    Item,
    connected,
    make_image,
    name_of,
    new_uuid,
    open_image,
    request,
    upload,
    upscale,
)
from tests.server.support.records import keep_result

DATA = make_image(40, 30, seed=1)
SIZE = len(DATA)


@pytest.fixture
async def url(server: EmbeddedServer) -> str:
    return str((await upload(server, DATA))["imageURL"])


def files(server: EmbeddedServer) -> set[str]:
    return {file.name for file in (server.services.settings.data / "images").iterdir()}


async def expire(server: EmbeddedServer, item: Item) -> None:
    """Let the time of an image pass."""
    change = update(images_table).where(images_table.c.uuid == item["imageUUID"]).values(expires=1.0)
    await server.services.database.run(lambda connection: connection.execute(change).rowcount)


@pytest.mark.parametrize(
    ("image_format", "media_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
        ("AVIF", "image/avif"),
    ],
)
async def test_an_image_has_the_bytes_and_the_type_it_was_uploaded_with(
    server: EmbeddedServer, image_format: str, media_type: str
) -> None:
    data = make_image(20, 20, image_format)
    reply = await request((await upload(server, data))["imageURL"])
    assert (reply.status, reply.body) == (200, data)
    assert reply.headers["content-type"] == media_type
    assert reply.headers["content-length"] == str(len(data))
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_a_result_is_served_with_its_own_type(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (result,) = await peer.ask(upscale(base64.b64encode(DATA).decode(), outputFormat="WEBP"))
    reply = await request(result["imageURL"])
    assert reply.headers["content-type"] == "image/webp"
    assert open_image(reply.body).size == (80, 60)


async def test_names_cannot_be_guessed(server: EmbeddedServer) -> None:
    names = [name_of(await upload(server, make_image(seed=seed))) for seed in range(5)]
    assert len(set(names)) == 5
    for name in names:
        match = re.fullmatch(r"([\w-]+)\.png", name)
        assert match is not None
        assert len(base64.urlsafe_b64decode(f"{match[1]}==")) >= 16, "128 bits"


async def test_a_browser_that_has_the_image_gets_no_bytes(url: str) -> None:
    etag = (await request(url)).headers["etag"]
    for known in (etag, f'"other", {etag}', f"W/{etag}"):
        reply = await request(url, if_none_match=known)
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["etag"] == etag
    assert (await request(url, if_none_match="*")).status == 304
    assert (await request(url, if_none_match='"other"')).body == DATA


async def test_browsers_may_keep_an_image_as_long_as_the_server_does(server: EmbeddedServer) -> None:
    reply = await request((await upload(server, make_image(seed=77), ttl=100))["imageURL"])
    match = re.search(r"max-age=(\d+)", reply.headers["cache-control"])
    assert match is not None
    assert 0 < int(match[1]) <= 100
    assert "private" in reply.headers["cache-control"]


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-19", slice(10, 20)),
        ("bytes=10-10", slice(10, 11)),
        (f"bytes=10-{SIZE + 1000}", slice(10, SIZE)),
        ("bytes=10-", slice(10, SIZE)),
        (f"bytes={SIZE - 1}-", slice(SIZE - 1, SIZE)),
        ("bytes=-7", slice(SIZE - 7, SIZE)),
    ],
)
async def test_a_range_gives_that_part(url: str, asked: str, part: slice) -> None:
    reply = await request(url, range=asked)
    assert (reply.status, reply.body) == (206, DATA[part])
    assert reply.headers["content-range"] == f"bytes {part.start}-{part.stop - 1}/{SIZE}"
    assert reply.headers["content-length"] == str(part.stop - part.start)


@pytest.mark.parametrize("asked", [f"bytes=0-{SIZE - 1}", "bytes=0-", f"bytes=-{SIZE + 5}"])
async def test_a_range_of_everything_gives_everything(url: str, asked: str) -> None:
    reply = await request(url, range=asked)
    assert reply.status in (200, 206)
    assert reply.body == DATA


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,4-5", "bytes=-", "bytes", "lines=0-1", "bytes=a-b", "", f"bytes={'9' * 5000}-"]
)
async def test_what_is_not_a_single_range_is_ignored(url: str, asked: str) -> None:
    reply = await request(url, range=asked)
    assert (reply.status, reply.body) == (200, DATA)


@pytest.mark.parametrize(
    "asked", [f"bytes={SIZE}-", f"bytes={SIZE + 10}-{SIZE + 20}", "bytes=9-3", "bytes=-0", f"bytes={10**17}-"]
)
async def test_a_range_beyond_the_end_is_refused(url: str, asked: str) -> None:
    reply = await request(url, range=asked)
    assert (reply.status, reply.body) == (416, b"")
    assert reply.headers["content-range"] == f"bytes */{SIZE}"


async def test_a_range_of_another_image_than_the_one_that_is_known_is_the_whole(url: str) -> None:
    etag = (await request(url)).headers["etag"]
    assert (await request(url, range="bytes=0-9", if_range=etag)).body == DATA[:10]
    for other in ('"other"', "Wed, 21 Oct 2015 07:28:00 GMT"):
        reply = await request(url, range="bytes=0-9", if_range=other)
        assert (reply.status, reply.body) == (200, DATA)


async def test_head_tells_everything_but_the_bytes(url: str) -> None:
    full, head = await request(url), await request(url, "HEAD")
    assert (head.status, head.body) == (200, b"")
    same = ("content-length", "content-type", "etag", "accept-ranges")
    assert {name: head.headers[name] for name in same} == {name: full.headers[name] for name in same}
    part = await request(url, "HEAD", range="bytes=0-4")  # which is defined for GET (RFC 9110 section 14.2)
    assert (part.status, part.headers["content-length"]) == (200, str(SIZE))


@pytest.mark.parametrize(
    "path",
    [
        "/images/",
        "/images/nothing",
        "/images/AAAAAAAAAAAAAAAAAAAAAA.png",
        "/images/../tilewire.db",
        "/images/..%2ftilewire.db",
        "/images/%2e%2e/tilewire.db",
        "/images/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/images/..%5ctilewire.db",
        "/images/AAAAAAAAAAAAAAAAAAAAAA.png%00",
        "/images/AAAAAAAAAAAAAAAAAAAAAA.png%0a",
        "/images/%ff%fe",
    ],
)
async def test_any_other_name_is_not_found(server: EmbeddedServer, path: str) -> None:
    assert (await request(f"{server.url}{path}")).status == 404


async def test_only_reading_is_allowed(url: str) -> None:
    for method in ("PUT", "POST", "DELETE"):
        assert (await request(url, method)).status == 405
    assert (await request(url)).body == DATA


async def test_an_image_is_gone_when_its_time_has_passed(server: EmbeddedServer) -> None:
    item = await upload(server, make_image(seed=21))
    assert (await request(item["imageURL"])).status == 200
    await expire(server, item)
    for method in ("GET", "HEAD"):
        assert (await request(item["imageURL"], method)).status == 404
    async with connected(server) as peer:
        (error,) = await peer.ask(upscale(item["imageUUID"]))
    assert error["code"] == "imageNotFound"


async def test_the_sweeper_deletes_expired_files_and_no_others(server: EmbeddedServer) -> None:
    gone, kept = [await upload(server, make_image(seed=seed)) for seed in (31, 32)]
    assert {name_of(gone), name_of(kept)} <= files(server)
    await expire(server, gone)
    assert await server.services.images.sweep() >= 1
    assert name_of(gone) not in files(server)
    assert name_of(kept) in files(server)
    assert await server.services.images.sweep() == 0
    assert (await request(kept["imageURL"])).status == 200


async def test_a_file_that_is_missing_already_does_not_stop_the_sweeper(server: EmbeddedServer) -> None:
    items = [await upload(server, make_image(seed=seed)) for seed in (41, 42, 43)]
    (server.services.settings.data / "images" / name_of(items[0])).unlink()
    for item in items:
        await expire(server, item)
    await server.services.images.sweep()  # the server's own may come in between, once a minute
    assert not {name_of(item) for item in items} & files(server)


async def test_an_image_whose_file_is_lost_is_not_found(server: EmbeddedServer) -> None:
    item = await upload(server, make_image(seed=51))
    (server.services.settings.data / "images" / name_of(item)).unlink()
    for method in ("GET", "HEAD"):
        assert (await request(item["imageURL"], method)).status == 404


async def test_the_same_image_keeps_its_uuid_and_is_stored_once(server: EmbeddedServer) -> None:
    first = await upload(server, make_image(seed=61))
    before = files(server)
    again = await upload(server, make_image(seed=61))
    assert (again["imageUUID"], again["imageURL"]) == (first["imageUUID"], first["imageURL"])
    assert files(server) == before


async def test_the_same_image_several_times_in_one_frame_is_stored_once(server: EmbeddedServer) -> None:
    before = files(server)
    image = base64.b64encode(make_image(seed=62)).decode()
    tasks = [{"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image} for _ in range(6)]
    async with connected(server) as peer:
        items = await peer.ask(*tasks)
    (url,) = {item["imageURL"] for item in items}
    assert (await request(url)).body == make_image(seed=62)
    assert len(files(server) - before) == 1


async def test_an_image_uploaded_again_after_its_time_is_there_again(server: EmbeddedServer) -> None:
    first = await upload(server, make_image(seed=63))
    await expire(server, first)
    again = await upload(server, make_image(seed=63))
    assert again["imageUUID"] == first["imageUUID"]
    assert (await request(again["imageURL"])).body == make_image(seed=63)
    await server.services.images.sweep()
    assert (await request(again["imageURL"])).status == 200
    assert name_of(first) not in files(server)


@pytest.fixture
def store(database: Database, clock: Clock) -> Iterator[ImageStore]:
    bucket = Bucket(MemoryStore())
    yield ImageStore(bucket, database, clock)
    bucket.close()


@pytest.fixture
def account(database: Database) -> AccountId:
    return database.run_sync(account_named, "ada", 0.0)


FILE = ImageFile(DATA, "png", 40, 30)


async def test_an_upload_repeated_extends_the_time_but_never_shortens_it(
    store: ImageStore, account: AccountId, clock: Clock
) -> None:
    first = await store.put_input(account, FILE, ttl=100)
    clock.now += 50
    again = await store.put_input(account, FILE, ttl=100)
    assert (again.uuid, again.name, again.expires) == (first.uuid, first.name, 1_150)
    assert (await store.put_input(account, FILE, ttl=1)).expires == pytest.approx(1_150)
    clock.now = 1_149
    assert await store.find(account, first.uuid) is not None
    clock.now = 1_151
    assert await store.find(account, first.uuid) is None
    assert await store.find_named(first.name) is None


async def test_an_input_that_is_known_to_be_there_is_not_written_again(
    store: ImageStore, account: AccountId
) -> None:
    first = await store.put_input(account, FILE, ttl=100)
    draft = await store.draft_input(account, FILE, ttl=200)
    assert (draft.is_written, draft.image.name) == (False, first.name)


async def test_an_input_that_went_while_it_was_recorded_is_written_again(
    store: ImageStore, account: AccountId, database: Database, clock: Clock
) -> None:
    first = await store.put_input(account, FILE, ttl=100)
    seen: list[str] = []

    async def record(drafts: Collection[Draft]) -> list[Recorded]:
        (draft,) = drafts
        seen.append(draft.image.name)
        if len(seen) == 1:
            await database.run(images_state.expire, account, first.uuid, clock.now)
            await store.sweep()
        return [
            await database.run(record_input, draft.image, clock.now, NO_LIMIT, is_written=draft.is_written)
        ]

    (kept,) = await store.settle([await store.draft_input(account, FILE, ttl=100)], record)
    assert seen == [first.name, kept.name]
    assert await store.read_part(kept.name, 0, SIZE) == DATA


@pytest.mark.parametrize("refusal", [QuotaError("storageQuotaExceeded", "full"), None])
async def test_the_file_of_an_input_that_is_not_recorded_is_deleted(
    tmp_path: Path, account: AccountId, database: Database, refusal: QuotaError | None
) -> None:
    bucket = Bucket(open_store(None, tmp_path / "images"))
    store = ImageStore(bucket, database)

    async def record(drafts: Collection[Draft]) -> None:
        (draft,) = drafts
        assert (tmp_path / "images" / draft.image.name).exists()
        if refusal is not None:
            raise refusal

    with pytest.raises(QuotaError) if refusal is not None else nullcontext():
        assert await store.settle([await store.draft_input(account, FILE, ttl=100)], record) == []
    assert list((tmp_path / "images").iterdir()) == []
    bucket.close()


async def test_a_large_input_is_not_written_before_it_is_known_to_be_wanted(
    tmp_path: Path, account: AccountId, database: Database
) -> None:
    bucket = Bucket(open_store(None, tmp_path / "images"))
    store, asked = ImageStore(bucket, database), []

    def refuse(_connection: Connection) -> None:
        asked.append(list((tmp_path / "images").iterdir()))
        raise QuotaError("storageQuotaExceeded", "no")

    with pytest.raises(QuotaError):
        await store.draft_input(account, FILE._replace(data=bytes(2**17)), ttl=100, check=refuse)
    assert asked == [[]]
    bucket.close()


async def test_accounts_do_not_share_images(
    store: ImageStore, account: AccountId, database: Database
) -> None:
    other = await database.run(account_named, "bob", 0.0)
    mine, theirs = [(await store.put_input(owner, FILE, ttl=100)) for owner in (account, other)]
    assert mine.uuid != theirs.uuid
    assert mine.name != theirs.name
    assert await store.find(other, mine.uuid) is None


async def test_results_are_images_of_their_own_even_if_equal(store: ImageStore, account: AccountId) -> None:
    first, second = [await keep_result(store, account, FILE, ttl=100) for _ in range(2)]
    assert first.uuid != second.uuid
    assert first.name != second.name


async def test_the_sweeper_deletes_more_than_one_batch(
    store: ImageStore, account: AccountId, clock: Clock
) -> None:
    records = await asyncio.gather(*(keep_result(store, account, FILE, ttl=10 + n) for n in range(130)))
    clock.now += 10 + 119
    assert await store.sweep() == 120
    with pytest.raises(FileNotFoundError):
        await store.read(records[119].name)
    assert await store.read(records[120].name) == DATA


async def test_what_a_crash_left_in_the_store_is_deleted_after_a_day(
    tmp_path: Path, database: Database, account: AccountId, clock: Clock
) -> None:
    bucket = Bucket(open_store(None, tmp_path / "images"))
    store = ImageStore(bucket, database, clock)
    record = await keep_result(store, account, FILE, ttl=1_000_000)
    for written in ("whole.png", "begun.png#1"):
        (tmp_path / "images" / written).write_bytes(DATA)
        await database.run(note_loose, written.partition("#")[0], clock.now)

    def left() -> set[str]:
        return {file.name for file in (tmp_path / "images").iterdir()}

    clock.now += 86_400
    assert await store.sweep() == 0
    assert left() == {record.name, "whole.png", "begun.png#1"}, "whoever writes them may be alive"
    clock.now += 1
    assert await store.sweep() == 0
    assert left() == {record.name}
    assert await database.run(condemned, "", 100) == []
    bucket.close()


async def test_parts_of_an_image_can_be_read(store: ImageStore, account: AccountId) -> None:
    record = await keep_result(store, account, FILE, ttl=10)
    assert await store.read_part(record.name, 5, 7) == DATA[5:12]


def test_the_store_is_a_directory_unless_a_url_says_otherwise(tmp_path: Path) -> None:
    open_store(None, tmp_path / "images")
    assert (tmp_path / "images").is_dir()
    assert "Memory" in repr(open_store("memory:///", tmp_path / "other"))
    assert not (tmp_path / "other").exists()
