"""A disk without room: all are answered soon, nothing accepted is lost, and all goes on when it has room."""

import asyncio
import base64
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.serving import EmbeddedServer
from server.state.audit import audit
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    Item,
    Peer,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    request,
    until,
    upscale,
)
from tests.server.support.stepped_device import SteppedDevice

SOON = 10.0
"""Seconds within which everything is answered on a machine with much else to do."""


class Disk:
    """A small file system, and what fills it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The data directory of the servers of a test, of 4 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("file systems can only be mounted by root")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this root may not mount file systems")
    yield Disk(tmp_path)
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def encoded(seed: int) -> str:
    return base64.b64encode(make_image(200, 150, seed=seed)).decode()


async def soon(peer: Peer, task: Item) -> Item:
    try:
        async with asyncio.timeout(SOON):
            await peer.send(task)
            return await peer.receive_item()
    except TimeoutError:
        raise AssertionError(f"{task['taskType']} is not answered") from None


async def ready(server: EmbeddedServer) -> tuple[int, str]:
    reply = await request(f"{server.url}/readyz")
    return reply.status, reply.body.decode()


async def test_a_full_disk_is_answered_named_and_survived(
    start_server: StartServer, disk: Disk, device: SteppedDevice
) -> None:
    server = start_server()
    account = open_account(server)
    async with connected(server, key=account.key) as peer:
        upload = {"taskType": "imageUpload", "image": encoded(0)}
        image = (await peer.ask(upload | {"taskUUID": new_uuid()}))[0]["imageUUID"]
        accepted, cancelled, other = [
            upscale(image, model="realesrgan-x4plus", upscaleFactor=4) for _ in range(3)
        ]
        await peer.send(accepted, cancelled)
        await until(lambda: server.services.runner.count == 2)

        disk.fill()
        for task in (
            upload | {"taskUUID": new_uuid(), "image": encoded(1)},
            other,
            {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": cancelled["taskUUID"]},
            {"taskType": "getResponse", "taskUUID": accepted["taskUUID"]},
            {"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "getDetails"},
            {"taskType": "modelSearch", "taskUUID": new_uuid()},
        ):
            item = await soon(peer, task)
            assert item["taskUUID"] == task["taskUUID"]
            assert item.get("code") in (None, "serviceUnavailable"), item
            if task["taskType"] in ("imageUpload", "upscale"):
                assert item["code"] == "serviceUnavailable"
        status, reason = await ready(server)
        assert (status, reason) in [(503, "the database is full\n"), (503, "the image store is full\n")]
        device.run_freely()

        disk.make_room()
        await until(lambda: _is_ready(server))
    async with connected(server, key=account.key) as peer:
        outcome = await peer.finished(accepted["taskUUID"])
        if outcome.get("code") == "serviceUnavailable":  # its result met the full disk, and cost nothing
            (outcome,) = await peer.ask(accepted)
        assert "imageURL" in outcome
        (outcome,) = await peer.ask(other)
        assert "imageURL" in outcome
        third = await peer.finished(cancelled["taskUUID"])
    # To stop it may have been refused, and its result may have met the full disk.
    assert charges(server, account.id)[1] == (3 if "imageURL" in third else 2)
    assert server.services.database.snapshot(audit).mistakes == []


async def _is_ready(server: EmbeddedServer) -> bool:
    return (await ready(server))[0] == 200
