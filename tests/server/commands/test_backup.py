"""`tilewire backup`, `tilewire restore` and `tilewire accounts audit --repair`."""

import asyncio
import base64
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from server.images.names import new_name
from server.serving import EmbeddedServer
from tests.server.conftest import StartServer, Tilewire, settings_for
from tests.server.support.harness import (
    Item,
    connected,
    make_image,
    name_of,
    new_uuid,
    open_account,
    request,
    until,
    upload,
    upscale,
)
from tests.server.support.postgresql import programs
from tests.server.support.s3 import BUCKET, running_s3
from tests.server.support.web import Web

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def command(tilewire: Tilewire) -> Command:
    """Runs a command in a thread, beside the event loop of the test."""

    async def run(*arguments: object, **more: str) -> Result:
        return await asyncio.to_thread(tilewire, *arguments, **more)

    return run


def environment_for(database_url: str | None) -> dict[str, str]:
    """What a command needs to find a database, and PostgreSQL's programs."""
    if database_url is None:
        return {}
    return {"TILEWIRE_DATABASE_URL": database_url, "PATH": f"{programs()}:{os.environ['PATH']}"}


async def work(server: EmbeddedServer, key: str, done: list[Item], numbers: Iterator[int]) -> None:
    """Send one task after another, each of a picture of its own, until it is cancelled."""
    async with connected(server, key=key) as peer:
        while True:
            picture = base64.b64encode(make_image(seed=next(numbers))).decode()
            done += await peer.ask(upscale(picture))


@pytest.fixture
def another_database(server_database: str | None, request: pytest.FixtureRequest) -> str | None:
    """An empty database of the same kind."""
    if server_database is None:
        return None
    url: str = request.getfixturevalue("postgresql").empty_database()
    return url


@pytest.mark.each_database
async def test_what_was_accepted_before_a_backup_under_load_is_there_after_the_restore(
    start_server: StartServer,
    command: Command,
    web: Web,
    tmp_path: Path,
    model_directory: Path,
    server_database: str | None,
    another_database: str | None,
) -> None:
    server, session = start_server(private_networks=True, drain_timeout=0.1), new_uuid()
    account, done = open_account(server), list[Item]()
    held = upscale(web.hold("/input.png", make_image(seed=1)))
    async with asyncio.TaskGroup() as group:
        numbers = itertools.count(2)
        load = [group.create_task(work(server, account.key, done, numbers)) for _ in range(2)]
        async with connected(server, key=account.key, session=session) as peer:
            await peer.send(held)
            await web.receive()
            await until(lambda: len(done) >= 5)
            before = list(done)
            saved = await command(
                "backup", tmp_path / "saved", "--data", tmp_path, **environment_for(server_database)
            )
            during = len(done)
            await until(lambda: len(done) > during)  # the load goes on
            await peer.cut()
        for each in load:
            each.cancel()
    assert saved.exit_code == 0, saved.output
    server.stop()
    arguments = "restore", tmp_path / "saved", "--data", tmp_path / "new"
    environment = environment_for(another_database)
    restored = await command(*arguments, **environment)
    assert restored.exit_code == 0, restored.output
    web.release("/input.png")
    settings = settings_for(
        tmp_path / "new", model_directory, private_networks=True, database_url=another_database
    )
    with EmbeddedServer(settings) as after:
        async with connected(after, key=account.key) as peer:
            for item in before:
                again = await peer.finished(item["taskUUID"])
                assert name_of(again) == name_of(item)
                assert (await request(again["imageURL"])).status == 200
            assert "imageURL" in await peer.finished(held["taskUUID"])
        audited = await command("accounts", "audit", "--data", tmp_path / "new", **environment)
    assert (audited.exit_code, audited.stderr) == (0, "")
    twice = await command(*arguments, **environment)
    assert twice.exit_code == 2
    assert "there is a database at" in twice.stderr


async def test_a_backup_is_brought_up_to_date_and_only_new_images_are_copied(
    start_server: StartServer, command: Command, tmp_path: Path
) -> None:
    server, saved = start_server(), tmp_path / "saved"
    arguments = "backup", saved, "--data", tmp_path
    gone, kept = await upload(server, make_image(seed=1), ttl=60), await upload(server, make_image(seed=2))
    models = tmp_path / "models"
    models.mkdir()
    (models / "mine.json").write_text("{}", encoding="utf-8")
    assert "images 2" in (await command(*arguments)).stdout
    copied = (saved / "images" / name_of(kept)).stat()
    async with connected(server) as peer:
        await peer.ask(
            {
                "taskType": "mediaStorage",
                "taskUUID": new_uuid(),
                "operation": "delete",
                "media": gone["imageUUID"],
            }
        )
    (models / "mine.json").unlink()
    (models / "other.json").write_text("{}", encoding="utf-8")
    new = await upload(server, make_image(seed=3))
    assert "images 2" in (await command(*arguments)).stdout
    assert {file.name for file in (saved / "images").iterdir()} == {name_of(kept), name_of(new)}
    assert (saved / "images" / name_of(kept)).stat() == copied
    assert [file.name for file in (saved / "models").iterdir()] == ["other.json"]
    assert {file.name for file in saved.iterdir()} == {"backup.json", "database", "images", "models"}
    assert saved.stat().st_mode & 0o077 == (saved / "database").stat().st_mode & 0o077 == 0


async def test_a_backup_that_is_cut_short_leaves_the_earlier_one_whole(
    start_server: StartServer, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, saved = start_server(), tmp_path / "saved"
    first = await upload(server, make_image(seed=1))
    assert (await command("backup", saved, "--data", tmp_path)).exit_code == 0
    before = (saved / "database").read_bytes()
    second = await upload(server, make_image(seed=2))

    def cut(*_: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("server.commands.backup.copy_models", cut)
        failed = await command("backup", saved, "--data", tmp_path)
    assert (failed.exit_code, failed.stderr) == (1, "No space left on device\n")
    assert (saved / "database").read_bytes() == before
    assert (await command("restore", saved, "--data", tmp_path / "new")).exit_code == 0
    audited = await command("accounts", "audit", "--data", tmp_path / "new")
    assert audited.exit_code == 0
    assert "the images are right: 1" in audited.stdout
    assert name_of(first) != name_of(second)


def test_neither_a_folder_of_something_else_nor_another_kind_of_database_is_taken(
    tilewire: Tilewire, tmp_path: Path
) -> None:
    tilewire("keys", "create")
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear", encoding="utf-8")
    refused = tilewire("backup", other)
    assert (refused.exit_code, "neither empty nor a back-up" in refused.stderr) == (1, True)
    assert [file.name for file in other.iterdir()] == ["letter.txt"]
    nothing = tilewire("restore", other, "--data", tmp_path / "new")
    assert (nothing.exit_code, "holds no back-up" in nothing.stderr) == (2, True)
    assert tilewire("backup", tmp_path / "saved").exit_code == 0
    postgresql = tilewire("restore", tmp_path / "saved", TILEWIRE_DATABASE_URL="postgresql://x@localhost/y")
    assert (postgresql.exit_code, postgresql.stderr) == (
        2,
        "the back-up is of sqlite; database_url is of postgresql\n",
    )
    (tmp_path / "saved" / "database").write_bytes(b"damaged")
    damaged = tilewire("restore", tmp_path / "saved", "--data", tmp_path / "new")
    assert damaged.exit_code == 1
    assert not (tmp_path / "new" / "tilewire.db").exists()


async def test_images_in_s3_are_backed_up_and_restored(
    start_server: StartServer, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        server = start_server(storage_url=f"s3://{BUCKET}/old")
        sent = await upload(server, make_image(seed=1))
        server.stop()
        old, new = ({"TILEWIRE_STORAGE_URL": f"s3://{BUCKET}/{place}"} for place in ("old", "new"))
        assert "images 1" in (await command("backup", tmp_path / "saved", "--data", tmp_path, **old)).stdout
        assert (
            await command("restore", tmp_path / "saved", "--data", tmp_path / "new", **new)
        ).exit_code == 0
        restored = s3.object(f"new/{name_of(sent)}")
        assert (restored["Body"].read(), restored["ContentType"]) == (make_image(seed=1), "image/png")


@pytest.mark.each_database
async def test_an_audit_finds_images_without_files_and_files_without_images_and_mends_them(
    start_server: StartServer, command: Command, tmp_path: Path, server_database: str | None
) -> None:
    server = start_server()
    store, audit = tmp_path / "images", ("accounts", "audit", "--data", tmp_path)
    environment = environment_for(server_database)
    lost, kept = await upload(server, make_image(seed=1)), await upload(server, make_image(seed=2))
    assert "the images are right: 2" in (await command(*audit, **environment)).stdout
    (store / name_of(lost)).unlink()
    unknown = new_name("png")
    (store / unknown).write_bytes(b"left behind")
    (store / "notes.txt").write_bytes(b"not ours")
    found = await command(*audit, **environment)
    assert found.exit_code == 1
    assert f"image {name_of(lost)}: its file is lost" in found.stderr
    assert f"file {unknown}: no image names it" in found.stderr
    assert "not Tilewire's, and left alone: 1" in found.stdout
    assert (await command(*audit, "--repair", **environment)).exit_code == 0
    again = await command(*audit, **environment)
    assert (again.exit_code, again.stderr) == (0, "")
    assert "the images are right: 1" in again.stdout
    sent_again = await upload(server, make_image(seed=1))
    assert (await request(sent_again["imageURL"])).status == 200
    assert (await request(kept["imageURL"])).status == 200


async def test_a_store_that_has_none_of_the_images_is_not_mended(
    start_server: StartServer, command: Command, tmp_path: Path
) -> None:
    server = start_server()
    sent = await upload(server, make_image(seed=1))
    server.stop()
    wrong = {"TILEWIRE_STORAGE_URL": f"file://{tmp_path}/images-of-another"}
    (tmp_path / "images-of-another").mkdir()
    refused = await command("accounts", "audit", "--repair", "--data", tmp_path, **wrong)
    assert refused.exit_code == 1
    assert "no image has its file in" in refused.stderr
    assert "the images are right: 1" in (await command("accounts", "audit", "--data", tmp_path)).stdout
    assert name_of(sent)
