"""TLS by the server itself, and by a proxy before it."""

import base64
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpcore
import pytest
from websockets.asyncio.client import connect

from server.serving import EmbeddedServer, StartError
from server.settings import SettingsError, load_settings
from tests.server.conftest import StartServer
from tests.server.support.certificate import make_certificate
from tests.server.support.harness import KEY, PATIENCE, Item, Peer, make_image, new_uuid, open_socket

CLIENT = "192.0.2.7"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


def upload() -> Item:
    image = base64.b64encode(make_image()).decode()
    return {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image}


async def test_sockets_and_requests_are_encrypted(
    start_server: StartServer, certificate: tuple[Path, Path]
) -> None:
    server = start_server(tls_certificate=certificate[0], tls_key=certificate[1])
    assert server.url.startswith("https://")
    context = ssl.create_default_context(cafile=certificate[0])
    async with open_socket(server, ssl=context) as socket:
        peer = Peer(socket)
        await peer.authenticate()
        (uploaded,) = await peer.ask(upload())
        assert socket.transport.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    assert uploaded["imageURL"].startswith("https://")
    async with httpcore.AsyncConnectionPool(ssl_context=context) as pool:
        response = await pool.request("GET", uploaded["imageURL"])
    assert (response.status, response.content) == (200, make_image())
    assert dict(response.headers)[b"strict-transport-security"] == b"max-age=31536000"


async def test_old_versions_of_tls_are_refused(
    start_server: StartServer, certificate: tuple[Path, Path]
) -> None:
    server = start_server(tls_certificate=certificate[0], tls_key=certificate[1])
    context = ssl.create_default_context(cafile=certificate[0])
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await open_socket(server, ssl=context)


def test_files_that_hold_no_certificate_are_one_line(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "nothing.pem").write_text("nothing", encoding="utf-8")
    for name in ("nothing.pem", "missing.pem"):
        with pytest.raises(StartError, match=rf"tls_certificate.*{name}"):
            start_server(tls_certificate=tmp_path / name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tls_key", "key.pem"),
        ("trusted_proxies", "10.0.0.1,proxy.example"),
        ("allowed_origins", "https://shop.example/"),
        ("allowed_origins", "shop.example"),
    ],
)
def test_wrong_settings_are_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings(environment={f"TILEWIRE_{name.upper()}": value})


def test_lists_are_separated_by_commas_in_the_environment() -> None:
    environment = {
        "TILEWIRE_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
        "TILEWIRE_ALLOWED_ORIGINS": "https://shop.example, http://127.0.0.1:3000",
    }
    settings, _ = load_settings(environment=environment)
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")
    assert settings.allowed_origins == ("https://shop.example", "http://127.0.0.1:3000")


async def through_proxy(server: EmbeddedServer, client: str = CLIENT) -> str:
    """The scheme of an image's URL, for a client whose requests a proxy hands on."""
    headers = {"X-Forwarded-For": client, "X-Forwarded-Proto": "https"}
    address = urlsplit(server.url)
    async with connect(
        "ws://up.example/v1",
        host=address.hostname,
        port=address.port,
        additional_headers=headers,
        proxy=None,
        open_timeout=PATIENCE,
    ) as socket:
        peer = Peer(socket)
        await peer.authenticate(KEY)
        (uploaded,) = await peer.ask(upload())
        url: str = uploaded["imageURL"]
        return url.partition("/images/")[0]


@pytest.mark.parametrize("trusted", [["127.0.0.1"], ["10.0.0.0/8", "127.0.0.0/8"], ["*"]])
async def test_a_trusted_proxy_tells_how_and_from_where_clients_came(
    start_server: StartServer, trusted: list[str]
) -> None:
    server = start_server(trusted_proxies=trusted, max_connections_per_address=1)
    headers = {"X-Forwarded-For": CLIENT}
    async with open_socket(server, additional_headers=headers):
        assert (await through_proxy(server, "192.0.2.8")).startswith("https://")
        with pytest.raises(Exception, match="429"):
            await through_proxy(server, CLIENT)


@pytest.mark.parametrize("trusted", [[], ["10.0.0.1"]])
async def test_others_are_not_believed(start_server: StartServer, trusted: list[str]) -> None:
    server = start_server(trusted_proxies=trusted, max_connections_per_address=1)
    assert (await through_proxy(server)).startswith("http://")
    async with open_socket(server, additional_headers={"X-Forwarded-For": "192.0.2.8"}):
        with pytest.raises(Exception, match="429"):
            await through_proxy(server, "192.0.2.9")
