"""The Unix socket: for programs on the same machine, beside TCP or in its place."""

import base64
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpcore
import msgspec
import pytest
from websockets.asyncio.client import unix_connect
from websockets.exceptions import InvalidStatus

from server.errors import StartError
from server.settings import Settings
from server.transport.listeners import ListenError, taken_unix_socket
from tests.server.conftest import StartServer
from tests.server.support.harness import FAST_MODEL, KEY, Peer, make_image, new_uuid, request, upscale
from tilewire import Tilewire, UnreachableError

HERE = "http://localhost"


@pytest.fixture
def path() -> Iterator[Path]:
    """Where a Unix socket may be: paths of pytest's are too long for some systems."""
    with tempfile.TemporaryDirectory(prefix="tw-") as directory:
        yield Path(directory, "s.sock")


def connect(path: Path, **options: Any) -> Any:
    return unix_connect(str(path), f"ws://{HERE.removeprefix('http://')}/v1", **options)


async def post(path: Path, *tasks: Any) -> httpcore.Response:
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpcore.AsyncConnectionPool(uds=str(path)) as pool:
        return await pool.request("POST", f"{HERE}/v1", headers=headers, content=msgspec.json.encode(tasks))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def left_over(path: Path, *, listens: bool) -> Iterator[None]:
    """A socket of another program, or of one that was killed."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        if listens:
            other.listen()
            yield
            return
    yield


async def test_clients_reach_it_instead_of_tcp(start_server: StartServer, path: Path) -> None:
    server = start_server(uds=path, tcp=False)
    assert server.url == f"unix://{path}"
    assert mode_of(path) == 0o660
    async with Tilewire(server.url, KEY) as tilewire:
        result = await tilewire.upscale(make_image(), model=FAST_MODEL, factor=2)
    assert (result.width, result.height) == (48, 32)
    async with httpcore.AsyncConnectionPool(uds=str(path)) as pool:
        assert (await pool.request("GET", result.url)).content == result.image
        assert (await pool.request("GET", f"{HERE}/metrics")).status == 200, "it is this machine that asks"
    assert (await post(path, {"taskType": "ping", "taskUUID": new_uuid()})).status == 200
    server.stop()
    assert list(path.parent.iterdir()) == []
    with pytest.raises(UnreachableError, match=f"unix://{path} cannot be reached: No such file or directory"):
        async with Tilewire(f"unix://{path}", KEY):
            pass


async def test_beside_tcp_a_session_goes_on_by_either_and_urls_lead_to_tcp(
    start_server: StartServer, path: Path
) -> None:
    server = start_server(uds=path)
    async with connect(path) as line:
        peer = Peer(line)
        session = (await peer.authenticate())["connectionSessionUUID"]
        (item,) = await peer.ask(upscale(base64.b64encode(make_image()).decode()))
        assert (await request(item["imageURL"])).status == 200
        assert item["imageURL"].startswith(server.url)
    async with connect(path) as line:
        again = await Peer(line).authenticate(session=session)
        assert again["connectionSessionUUID"] == session


async def test_the_limits_of_an_address_hold_for_each_user_and_none_for_a_proxy(
    start_server: StartServer, path: Path
) -> None:
    server = start_server(uds=path, max_connections_per_address=1)
    async with connect(path):
        with pytest.raises(InvalidStatus) as refused:
            await connect(path).__aenter__()
        assert refused.value.response.status_code == 429
        assert (await request(f"{server.url}/healthz")).status == 200, "others have places of their own"
    server.stop()

    start_server(uds=path, max_connections_per_address=1, trusted_proxies=(f"unix:{os.getuid()}",))
    one, other = ({"X-Forwarded-For": f"203.0.113.{number}"} for number in (1, 2))
    async with connect(path, additional_headers=one), connect(path, additional_headers=other):
        with pytest.raises(InvalidStatus):
            await connect(path, additional_headers=one).__aenter__()


async def test_wrong_keys_of_a_user_are_counted(start_server: StartServer, path: Path) -> None:
    start_server(uds=path, failed_authentications_per_minute=1)
    codes = []
    for _ in range(2):
        async with connect(path) as line:
            codes.append((await Peer(line).authenticate("wrong"))["code"])
    assert codes == ["invalidApiKey", "authenticationRateLimit"]


async def test_what_a_killed_server_left_is_replaced(start_server: StartServer, path: Path) -> None:
    with left_over(path, listens=False):
        start_server(uds=path, tcp=False)
        assert (await post(path, {"taskType": "ping"})).status == 200


def test_what_is_in_use_is_left_alone(start_server: StartServer, path: Path) -> None:
    with left_over(path, listens=True), pytest.raises(StartError, match="another program listens there"):
        start_server(uds=path)
    path.unlink()
    path.write_text("notes", encoding="utf-8")
    with pytest.raises(StartError, match="there is a file that is no socket"):
        start_server(uds=path)
    assert path.read_text("utf-8") == "notes"
    path.unlink()
    start_server(uds=path)
    with pytest.raises(StartError, match=f"cannot listen on the Unix socket {path}: another server uses it"):
        start_server(uds=path, port=0)
    assert path.is_socket()


def test_a_path_that_cannot_be_had_is_explained(start_server: StartServer, path: Path) -> None:
    with pytest.raises(StartError, match=r"its path has 1\d\d bytes, and may have 10\d"):
        start_server(uds=path.with_name("x" * 120))
    with pytest.raises(StartError, match=f"there is no directory {path.parent}/none"):
        start_server(uds=path.parent / "none" / "s.sock")
    with pytest.raises(StartError, match="uds_owner, uds_group: no such group: 'no-such-group'"):
        start_server(uds=path, uds_group="no-such-group")
    assert list(path.parent.iterdir()) == [], "nothing is left"


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Be another user for a moment, in the whole process."""
    before = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[1])
        os.setgroups(before[0])


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away, and become another user")
def test_members_of_the_group_may_connect_and_others_not(start_server: StartServer, path: Path) -> None:
    path.parent.chmod(0o755)
    start_server(uds=path, uds_owner="0", uds_group="12345")
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 12345)
    with socket.socket(socket.AF_UNIX) as member, as_user(65534, 12345):
        member.connect(str(path))
    with (
        socket.socket(socket.AF_UNIX) as stranger,
        as_user(65534, 65534),
        pytest.raises(PermissionError),
    ):
        stranger.connect(str(path))


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_a_directory_of_others_is_explained(path: Path) -> None:
    path.parent.chmod(0o755)
    with (
        as_user(65534, 65534),
        pytest.raises(ListenError, match=f"no right to make files in {path.parent}"),
        taken_unix_socket(Settings(uds=path)),
    ):
        pass
