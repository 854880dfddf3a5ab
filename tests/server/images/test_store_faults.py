"""The image store fails: tasks are told so and cost nothing, and all is well when it is back."""

import base64
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from server.images.bucket import Bucket, open_store
from server.images.store import ImageFile, ImageStore
from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.state.accounts import AccountId, account_named
from server.state.database import Database
from server.state.loose_files import condemn
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    PATIENCE,
    Item,
    Peer,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    upscale,
)
from tests.server.support.records import keep_result
from tests.server.support.scrape import metrics_of
from tests.server.support.web import Web

FILE = ImageFile(b"pixels", "png", 2, 3)
IMAGE = base64.b64encode(make_image()).decode()
FULL = "Generic LocalFileSystem error: No space left on device (os error 28)"


@pytest.fixture
def account(database: Database) -> AccountId:
    return database.run_sync(account_named, "ada", 0.0)


class Faults:
    """Makes a function of obstore fail, a number of times or for good."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.calls = 0
        real: Callable[..., Any] = getattr(obstore, name)

        def call(*arguments: Any, **more: Any) -> Any:
            self.calls += 1
            if self.left:
                self.left -= 1
                raise GenericError(FULL)
            return real(*arguments, **more)

        monkeypatch.setattr(obstore, name, call)


def elsewhere(folder: Path) -> str:
    """The URL of a store that is not on the database's disk."""
    (folder / "elsewhere").mkdir()
    return (folder / "elsewhere").as_uri()


def images(database: Database) -> ImageStore:
    return ImageStore(Bucket(MemoryStore(), pauses=(0.0, 0.0)), database)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has a function of obstore not return until the end of the test."""
    over = threading.Event()

    def hang(name: str) -> None:
        real: Callable[..., Any] = getattr(obstore, name)

        def call(*arguments: Any, **more: Any) -> Any:
            assert over.wait(PATIENCE)
            return real(*arguments, **more)

        monkeypatch.setattr(obstore, name, call)

    yield hang
    over.set()


@pytest.mark.parametrize(("function", "stage"), [("get", "fetch"), ("put", "store")])
async def test_a_store_that_hangs_is_given_up_after_one_deadline_and_named_by_its_stage(
    start_server: StartServer, tmp_path: Path, hanging: Callable[[str], None], function: str, stage: str
) -> None:
    server = start_server(store_timeout=0.2, storage_url=elsewhere(tmp_path))
    account = open_account(server)
    async with connected(server, key=account.key) as peer:
        sent = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": IMAGE}
        (uploaded,) = await peer.ask(sent)
        forget_what_is_fresh(server.services.images)
        before = await metrics_of(server)
        hanging(function)
        (failed,) = await peer.ask(upscale(uploaded["imageUUID"]))
    assert (failed["code"], failed["message"]) == ("serviceUnavailable", "the image store cannot be used")
    metrics = await metrics_of(server)
    waited = f"tilewire_stage_seconds_sum{{stage={stage}}}"
    assert metrics[waited] - before[waited] >= 0.2
    decoded = "tilewire_stage_seconds_count{stage=decode}"
    assert metrics[decoded] - before[decoded] == (function == "put")
    assert charges(server, account.id) == (0, 0)


async def test_a_fault_that_ends_soon_is_not_noticed(
    database: Database, account: AccountId, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, putting, getting = (
        images(database),
        Faults("put", monkeypatch),
        Faults("get", monkeypatch),
    )
    putting.left = getting.left = 2
    image = await keep_result(store, account, FILE, 60)
    forget_what_is_fresh(store)
    assert await store.read(image.name) == FILE.data
    assert (putting.calls, getting.calls) == (3, 3)


async def test_what_was_just_written_is_not_read_back(
    database: Database, account: AccountId, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, getting = images(database), Faults("get", monkeypatch)
    result, known = await keep_result(store, account, FILE, 60), (await store.put_input(account, FILE, 60))
    again = await store.put_input(account, FILE, 60)
    assert [await store.read(image.name) for image in (result, known)] == [FILE.data] * 2
    assert (again.name, getting.calls) == (known.name, 0)
    assert await store.read(known.name) == FILE.data
    assert getting.calls == 1, "it is at hand once"
    large = [await keep_result(store, account, FILE._replace(data=bytes(40 * 2**20)), 60) for _ in range(2)]
    for image in large:
        await store.read(image.name)
    assert getting.calls == 2, "what is at hand is bounded"


async def test_an_input_whose_object_was_lost_is_mended_by_the_same_bytes(
    database: Database, account: AccountId
) -> None:
    bucket = Bucket(MemoryStore())
    store = ImageStore(bucket, database)
    lost = await store.put_input(account, FILE, 60)
    await bucket.delete([lost.name])
    mended = await store.put_input(account, FILE, 60)
    assert (mended.uuid, await bucket.read(mended.name)) == (lost.uuid, FILE.data)


async def test_a_fault_that_stays_is_told_and_no_image_is_recorded(
    database: Database, account: AccountId, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, faults = images(database), Faults("put", monkeypatch)
    faults.left = 3
    with pytest.raises(UnavailableError) as caught:
        await store.put_input(account, FILE, 60)
    assert "No space" not in str(caught.value), "how the server is made is not the client's business"
    image = await store.put_input(account, FILE, 60)
    assert await store.read(image.name) == FILE.data


async def test_an_image_that_is_not_there_is_not_asked_for_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, faults = images(database), Faults("get", monkeypatch)
    with pytest.raises(FileNotFoundError):
        await store.read("nothing.png")
    assert faults.calls == 1


def encoded(seed: int = 0) -> str:
    return base64.b64encode(make_image(seed=seed)).decode()


async def upload(peer: Peer, seed: int = 0) -> Item:
    (reply,) = await peer.ask({"taskType": "imageUpload", "taskUUID": new_uuid(), "image": encoded(seed)})
    return reply


def forget_what_is_fresh(store: ImageStore) -> None:
    """Have images read from where they are kept."""
    for _ in range(2):
        store.forget_unread()


class Disk:
    """The local directory of the images, taken away and put back."""

    def __init__(self, data: Path) -> None:
        self._images, self._aside = data / "images", data / "aside"

    def take_away(self) -> None:
        self._images.rename(self._aside)
        self._images.touch()  # a file where the directory should be: no user can write into that

    def put_back(self) -> None:
        self._images.unlink()
        self._aside.rename(self._images)


async def test_a_result_that_cannot_be_stored_costs_nothing_and_the_same_task_succeeds_later(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, faults = start_server(storage_url=elsewhere(tmp_path)), Faults("put", monkeypatch)
    account = open_account(server)
    async with connected(server, key=account.key) as peer:
        task = upscale((await upload(peer))["imageUUID"])
        faults.left = 3
        (error,) = await peer.ask(task)
        assert (error["code"], error["retryAfter"]) == ("serviceUnavailable", 10)
        assert error["message"] == "the image store cannot be used"
        assert charges(server, account.id) == (0, 0)
        (result,) = await peer.ask(task)
        assert "imageURL" in result
    assert charges(server, account.id)[1] == 1


async def test_without_its_directory_the_server_refuses_images_and_goes_on(
    start_server: StartServer, tmp_path: Path
) -> None:
    server, disk = start_server(), Disk(tmp_path)
    async with connected(server) as peer:
        image = (await upload(peer))["imageUUID"]
        disk.take_away()
        for refused in (await upload(peer, seed=1), *await peer.ask(upscale(image))):
            assert (refused["code"], refused["retryAfter"]) == ("serviceUnavailable", 10)
        disk.put_back()
        assert "imageURL" in await upload(peer, seed=1)
        assert "imageURL" in (await peer.ask(upscale(image)))[0]


async def test_a_result_that_cannot_be_read_just_now_is_not_lost(
    start_server: StartServer, tmp_path: Path, web: Web
) -> None:
    server, disk, session = start_server(private_networks=True), Disk(tmp_path), new_uuid()
    account = open_account(server)
    task = upscale(web.hold("/image.png", make_image()), outputType="base64Data")
    async with connected(server, key=account.key, session=session) as peer:
        await peer.send(task)
        await web.receive()
        await peer.cut()
    web.release("/image.png")
    async with connected(server, key=account.key) as other:
        await other.finished(task["taskUUID"])
    forget_what_is_fresh(server.services.images)
    disk.take_away()
    async with connected(server, key=account.key, session=session) as peer:
        error = await peer.receive_item()
        assert (error["code"], error["taskUUID"]) == ("serviceUnavailable", task["taskUUID"])
        disk.put_back()
        (result,) = await peer.ask(task)
        assert base64.b64decode(result["imageBase64Data"])
    assert charges(server, account.id)[1] == 1


async def test_an_image_that_vanished_is_not_found(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    async with connected(server) as peer, httpcore.AsyncConnectionPool() as pool:
        uploaded = await upload(peer)
        task = upscale(encoded(1), outputType=["URL", "base64Data"])
        (result,) = await peer.ask(task)
        forget_what_is_fresh(server.services.images)
        for file in (tmp_path / "images").iterdir():
            file.unlink()
        (error,) = await peer.ask(upscale(uploaded["imageUUID"]))
        assert error["code"] == "imageExpired"
        (error,) = await peer.ask(task)
        assert error["code"] == "imageExpired"
        assert (await pool.request("GET", result["imageURL"])).status == 404
        (error,) = await peer.ask({"taskType": "getResponse", "taskUUID": task["taskUUID"]})
        assert error["code"] == "imageExpired"


async def test_an_image_that_cannot_be_read_just_now_is_told_over_http(
    start_server: StartServer, tmp_path: Path
) -> None:
    server, disk = start_server(), Disk(tmp_path)
    async with connected(server) as peer, httpcore.AsyncConnectionPool() as pool:
        url = (await upload(peer))["imageURL"]
        disk.take_away()
        response = await pool.request("GET", url)
        assert (response.status, dict(response.headers)[b"retry-after"]) == (503, b"10")
        disk.put_back()
        assert (await pool.request("GET", url)).status == 200


async def test_an_image_is_told_to_be_unavailable_while_the_database_is(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()

    async def fail(*_: Any) -> None:
        raise DatabaseUnavailableError

    monkeypatch.setattr(server.services.images, "find_named", fail)
    async with httpcore.AsyncConnectionPool() as pool:
        response = await pool.request("GET", f"{server.url}/images/{'a' * 22}.png")
    assert (response.status, dict(response.headers)[b"retry-after"]) == (503, b"5")


async def test_a_task_that_is_accepted_is_not_refused_as_its_known_input_cannot_be_looked_at(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, faults = start_server(), Faults("head", monkeypatch)
    account = open_account(server)
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in (await peer.ask(upscale(IMAGE)))[0]
        monkeypatch.setattr(server.services.images._bucket, "_pauses", ())
        faults.left = 1
        assert "imageURL" in (await peer.ask(upscale(IMAGE)))[0]
    assert faults.left == 0
    assert charges(server, account.id)[1] == 2


async def test_a_result_for_which_neither_store_nor_database_has_room_is_one_clear_error(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server()
    account = open_account(server)
    run, bucket = server.services.database.run, server.services.images._bucket
    async with connected(server, key=account.key) as peer:
        image = (await upload(peer))["imageUUID"]

        def fill(_name: str, _data: bytes) -> None:
            raise UnavailableError("the image store cannot be used")

        async def fail(function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
            if function is condemn:
                raise DatabaseUnavailableError
            return await run(function, *arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(bucket, "write_here", fill)
            patch.setattr(server.services.database, "run", fail)
            (error,) = await peer.ask(task := upscale(image))
        assert (error["code"], error["message"]) == ("serviceUnavailable", "the image store cannot be used")
        assert "imageURL" in (await peer.ask(task))[0]
    assert charges(server, account.id)[1] == 1
    assert not [entry for entry in caplog.records if entry.exc_info]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "images"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("file systems can only be mounted by root")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this root may not mount file systems")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_is_told_and_the_server_goes_on_when_there_is_room(
    start_server: StartServer, small_disk: Path
) -> None:
    server = start_server()
    account = open_account(server)
    async with connected(server, key=account.key) as peer:
        task = upscale((await upload(peer))["imageUUID"])
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(2**17))
        (error,) = await peer.ask(task)
        assert error["code"] == "serviceUnavailable"
        assert charges(server, account.id) == (0, 0)
        ballast.unlink()
        (result,) = await peer.ask(task)
        assert "imageURL" in result
    assert charges(server, account.id)[1] == 1


async def test_a_file_that_cannot_be_deleted_stops_no_other(
    tmp_path: Path, database: Database, account: AccountId
) -> None:
    now = [1_000.0]
    bucket = Bucket(open_store(None, tmp_path / "images"), pauses=(0.0, 0.0))
    store = ImageStore(bucket, database, clock=lambda: now[0])
    await bucket.open()
    images = [await keep_result(store, account, FILE, ttl=10) for _ in range(230)]
    stuck = tmp_path / "images" / min(image.name for image in images)
    stuck.unlink()
    (stuck / "not empty").mkdir(parents=True)
    now[0] += 11
    assert await store.sweep() == 230
    assert {file.name for file in (tmp_path / "images").iterdir()} - {"readiness"} == {stuck.name}
    shutil.rmtree(stuck)
    stuck.write_bytes(b"")
    await store.sweep()
    assert not stuck.exists()
    bucket.close()


async def test_an_image_that_took_more_than_a_day_to_write_is_written_again(
    database: Database, account: AccountId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the machine sleeps in between: the sweeper took its file for one that a crash left behind."""
    now = [1_000.0]
    bucket = Bucket(MemoryStore())
    store = ImageStore(bucket, database, clock=lambda: now[0])
    write = bucket.write

    async def sleep_after(*arguments: Any) -> None:
        await write(*arguments)
        if now[0] == 1_000.0:
            now[0] += 25 * 3600
            await store.sweep()

    monkeypatch.setattr(bucket, "write", sleep_after)
    record = await store.put_input(account, FILE, ttl=7 * 86400)
    assert await store.find(account, record.uuid) == record
    assert await bucket.read(record.name) == FILE.data
