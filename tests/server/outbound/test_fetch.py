"""Requests to addresses that clients name: what is refused, and that it is refused before connecting."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpcore
import pytest
import pytest_asyncio

from server.outbound.addresses import Reachable
from server.outbound.fetch import FetchError, ForbiddenAddressError, WebClient
from tests.server.support.harness import PATIENCE

PUBLIC = "93.184.216.34"
LIMIT = 1000
EVERYTHING = Reachable(all_private=True)


class Internet:
    """Names and addresses of a small internet; every connection to it ends at one local server.

    Attributes:
        names: the addresses of each host name.
        pages: what the server does with a connection, by the path that is asked for.
        connected: the addresses that were connected to.
        requests: the requests that came, header and body.
        down: addresses that cannot be connected to, and how that fails.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {"public.example": [PUBLIC]}
        self.pages: dict[str, Callable[[asyncio.StreamWriter], Awaitable[None]]] = {}
        self.connected: list[str] = []
        self.requests: list[bytes] = []
        self.down: dict[str, Exception] = {}
        self.port = 0

    def answers(self, path: str, status: str, *headers: str, body: bytes = b"") -> None:
        head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""))

        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(head.encode() + body)

        self.pages[path] = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        try:
            await self.pages[request.split()[1].decode()](writer)
            await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    async def resolve(self, host: str, port: int) -> list[str]:
        if (addresses := self.names.get(host)) is not None:
            return addresses
        # The system's own reading of addresses, such as 0x7f000001, without asking a name server.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [str(entry[4][0]) for entry in found]

    def client(self, **options: Any) -> WebClient:
        return WebClient(**{"timeout": PATIENCE, "resolve": self.resolve} | options)

    async def get(self, url: str, **options: Any) -> bytes:
        client = self.client(**options)
        try:
            return await client.get(url, max_bytes=LIMIT)
        finally:
            await client.close()


REAL_BACKEND = httpcore.AnyIOBackend


@pytest_asyncio.fixture
async def internet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    net = Internet()

    class Backend(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
            net.connected.append(host)
            if host in net.down:
                raise net.down[host]
            return await REAL_BACKEND().connect_tcp("127.0.0.1", net.port)

    server = await asyncio.start_server(net.serve, "127.0.0.1", 0)
    net.port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(httpcore, "AnyIOBackend", Backend)
    yield net
    server.close()


async def test_a_public_address_is_fetched_at_the_address_that_was_checked(internet: Internet) -> None:
    internet.answers("/a.png", "200 OK", body=b"image")
    assert await internet.get("http://public.example/a.png") == b"image"
    assert internet.connected == [PUBLIC]
    assert b"Host: public.example" in internet.requests[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://0177.0.0.1/",
        "http://0/", "http://0.0.0.0/", "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/",
        "http://100.64.0.1/", "http://169.254.169.254/latest/meta-data/", "http://224.0.0.1/",
        "http://255.255.255.255/", "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/", "http://[::127.0.0.1]/", "http://[64:ff9b::127.0.0.1]/",
        "http://[64:ff9b:1::7f00:1]/", "http://[2002:7f00:1::]/", "http://[fe80::1]/", "http://[fc00::1]/",
        "http://[fec0::1]/", "http://[ff02::1]/", "http://user@127.0.0.1/", "http://public.example@127.0.0.1/",
        "http://public.example:80@127.0.0.1/", "http://127.0.0.1:80\t/", "http://private.example/",
        "https://private.example/", "http://private.example./", "http://PRIVATE.example/",
        # The same addresses written otherwise: octal, hexadecimal, short, with a dot, in other digits.
        "http://0177.1/", "http://017700000001/", "http://0x7f.0.0.1/", "http://0x7f.1/", "http://0X7F000001/",
        "http://127.0.1/", "http://127.0.0.1./", "http://00000177.0.0.1/", "http://3232235777/",
        "http://0251.0376.0251.0376/", "http://0xa9fea9fe/", "http://2852039166/", "http://169.16689662/",
        "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/", "http://127\u30020\u30020\u30021/",
        "http://\uff11\uff12\uff17.0.0.1/", "http://\U0001d7d9\U0001d7da\U0001d7df.\U0001d7d8.\U0001d7d8.\U0001d7d9/",
        "http://127.0.0.1%2f/",
        "http://1ocalhost\u200b/", "http://127.0.0.1#@public.example/", "http://127.0.0.1?@public.example/",
        "http://127.0.0.1\\@public.example/", "http://public.example\\@127.0.0.1/", "http:\\\\127.0.0.1/",
        "http://127.0.0.1:80@public.example/", "http://a:b@public.example/", "http://@public.example/",
        # Clouds' own, and the other ranges that are not the internet's.
        "http://100.100.100.200/", "http://168.63.129.16/", "http://192.0.0.192/", "http://[fd00:ec2::254]/",
        "http://0.1.2.3/", "http://127.255.255.254/", "http://172.31.255.255/", "http://192.0.2.1/",
        "http://192.88.99.1/", "http://198.18.0.1/", "http://198.51.100.1/", "http://203.0.113.1/",
        "http://239.255.255.250/", "http://240.0.0.1/", "http://100.127.255.255/",
        # IPv6, and IPv4 in it: mapped, compatible, NAT64, 6to4, Teredo, ISATAP-like, with a zone.
        "http://[0:0:0:0:0:0:0:1]/", "http://[::ffff:0:127.0.0.1]/", "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b::10.0.0.1]/", "http://[2002:a9fe:a9fe::]/",
        "http://[2002:808:808::]/", "http://[2001::1]/", "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
        "http://[fe80::1%25lo]/", "http://[fe80::1%lo]/", "http://[::1%25lo]/", "http://[febf::1]/",
        "http://[fdff::1]/", "http://[2001:db8::1]/", "http://[3fff::1]/", "http://[100::1]/",
        "http://[5f00::1]/", "http://[4000::1]/", "http://[ff05::1:3]/", "http://[2001:2::1]/",
    ],
)  # fmt: skip
async def test_addresses_that_are_not_public_are_never_connected_to(internet: Internet, url: str) -> None:
    internet.names |= {name: ["10.0.0.1"] for name in ("private.example", "private.example.")}
    with pytest.raises(FetchError):
        await internet.get(url)
    assert internet.connected == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://public.example/", "gopher://public.example/", "data:,x", "//public",
        "public.example", "http://", "http:///a", "http://:80/", "", "HTTP//x", "unix:///run/x",
    ],
)  # fmt: skip
async def test_only_http_is_spoken(internet: Internet, url: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="must begin with http"):
        await internet.get(url)
    assert internet.connected == []


@pytest.mark.parametrize(
    "url",
    [
        "http://public.example:99999/", "http://public.example:x/", "http://[::1", "http://[x]/", "http://é\ud800/",
        "http://" + "a" * 100 + ".example/", "http://a..b/", "http://exa mple/",
        "http://\x00/", "http://public.example:80 HTTP/1.1\r\nHost: x/", "http://public.example/\ud800",
    ],
)  # fmt: skip
async def test_urls_that_cannot_be_read_fail_in_one_way(internet: Internet, url: str) -> None:
    with pytest.raises(FetchError):
        await internet.get(url)
    assert internet.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/secret", "http://[::1]/secret", "http://private.example/secret",
        "//127.0.0.1/secret", "https://10.0.0.1/secret", "file:///etc/passwd", "http://0x7f000001/secret",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
async def test_a_redirect_to_a_private_address_is_refused(
    internet: Internet, target: str, status: str
) -> None:
    internet.names["private.example"] = ["192.168.0.1"]
    internet.answers("/a.png", status, f"Location: {target}")
    with pytest.raises(FetchError, match=r"cannot be reached|not a public address|must begin with"):
        await internet.get("http://public.example/a.png")
    assert internet.connected == [PUBLIC]


async def test_a_name_is_checked_each_time_it_is_resolved(internet: Internet) -> None:
    """DNS rebinding: public for the first request, private for the redirect to itself."""

    async def rebind(writer: asyncio.StreamWriter) -> None:
        internet.names["public.example"] = ["127.0.0.1"]
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    internet.pages["/a"] = rebind
    with pytest.raises(FetchError, match="cannot be reached"):
        await internet.get("http://public.example/a")
    assert internet.connected == [PUBLIC]


async def test_redirects_are_followed_and_end(internet: Internet) -> None:
    internet.answers("/a", "302 Found", "Location: b")
    internet.answers("/b", "307 Temporary", "Location: http://public.example/c")
    internet.answers("/c", "200 OK", body=b"image")
    internet.answers("/round", "302 Found", "Location: /round")
    internet.answers("/nowhere", "302 Found")
    assert await internet.get("http://public.example/a") == b"image"
    with pytest.raises(FetchError, match="more than 5 redirects"):
        await internet.get("http://public.example/round")
    with pytest.raises(FetchError, match="nowhere"):
        await internet.get("http://public.example/nowhere")


async def test_private_networks_may_be_allowed(internet: Internet) -> None:
    internet.answers("/a", "302 Found", "Location: http://10.0.0.1/b")
    internet.answers("/b", "200 OK", body=b"image")
    assert await internet.get("http://127.0.0.1/a", reachable=EVERYTHING) == b"image"
    with pytest.raises(ForbiddenAddressError):
        await internet.get("file:///etc/passwd", reachable=EVERYTHING)


async def test_a_body_is_read_to_the_limit_and_no_further(internet: Internet) -> None:
    internet.answers("/limit", "200 OK", body=b"x" * LIMIT)
    internet.answers("/over", "200 OK", body=b"x" * (LIMIT + 1))

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    internet.pages["/endless"] = endless
    assert len(await internet.get("http://public.example/limit")) == LIMIT
    for path in ("/over", "/endless"):
        with pytest.raises(FetchError, match="larger than 1000 bytes"):
            await internet.get(f"http://public.example{path}")


async def test_urls_beyond_ascii_are_asked_for_as_browsers_do(internet: Internet) -> None:
    internet.names |= {"xn--bume-loa.example": [PUBLIC], "private.example": ["10.0.0.1"]}
    internet.answers("/gr%C3%BCn%20und%20%C3%B6d?a=%C3%A9&b=%20", "302 Found", "Location: /ü#x")
    internet.answers("/%C3%BC", "200 OK", body=b"image")
    assert await internet.get("http://bäume.example/grün und%20öd?a=é&b=%20#ü") == b"image"
    assert b"Host: xn--bume-loa.example" in internet.requests[0]
    for url in (
        "http://private.example\uff0fpublic.example/",
        "http://\u24df\u24e1ivate.example/",
        "http://①27.0.0.1/",
    ):
        with pytest.raises(FetchError):
            await internet.get(url)
    assert internet.connected == [PUBLIC] * 2


async def test_a_compressed_body_is_not_expanded(internet: Internet) -> None:
    internet.answers("/a", "200 OK", "Content-Encoding: gzip", body=b"\x1f\x8b")
    assert await internet.get("http://public.example/a") == b"\x1f\x8b"
    assert b"Accept-Encoding: identity" in internet.requests[0]


@pytest.mark.parametrize("slow", ["head", "body", "drip"])
async def test_the_time_is_for_all_of_it(internet: Internet, slow: str) -> None:
    async def page(writer: asyncio.StreamWriter) -> None:
        if slow != "head":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        while True:
            if slow == "drip":
                writer.write(b"x")
                await writer.drain()
            await asyncio.sleep(0.01)

    internet.pages["/a"] = page
    with pytest.raises(FetchError, match="no complete answer within"):
        await asyncio.wait_for(internet.get("http://public.example/a", timeout=0.1), PATIENCE)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xff://\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[:40]),
)  # fmt: skip
async def test_broken_answers_fail_in_one_way(internet: Internet, answer: bytes) -> None:
    async def page(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    internet.pages["/a"] = page
    with pytest.raises(FetchError) as caught:
        await internet.get("http://public.example/a")
    assert "Traceback" not in str(caught.value)


async def test_a_name_that_leads_nowhere_and_one_that_leads_inside_look_alike(
    internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    internet.names["inside.example"] = ["10.0.0.7"]
    for name in ("nowhere.example", "inside.example"):
        with pytest.raises(FetchError) as caught:
            await internet.get(f"http://{name}/")
        assert (type(caught.value), str(caught.value)) == (FetchError, f"{name} cannot be reached")
    assert "not public: inside.example, 10.0.0.7" in caplog.text


async def test_results_and_webhooks_are_not_sent_to_private_addresses_nor_redirected(
    internet: Internet,
) -> None:
    internet.answers("/ok", "204 No Content")
    internet.answers("/moved", "307 Temporary", "Location: http://127.0.0.1/")
    client = internet.client()
    try:
        await client.send("PUT", "http://public.example/ok", b"body", "image/png")
        for url in ("http://127.0.0.1/ok", "http://localhost/ok", "http://public.example/moved", "file:///a"):
            internet.names["localhost"] = ["127.0.0.1"]
            with pytest.raises(FetchError):
                await client.send("POST", url, b"body", "application/json")
    finally:
        await client.close()
    assert internet.connected == [PUBLIC, PUBLIC]


async def test_only_the_public_addresses_of_a_name_are_tried_one_after_the_other(internet: Internet) -> None:
    second, third = "93.184.216.35", "2606:2800:220:1::1"
    internet.names["many.example"] = ["10.0.0.1", PUBLIC, "127.0.0.1", second, "::1", third, "8.8.8.8"]
    internet.down = {PUBLIC: httpcore.ConnectError(), second: httpcore.ConnectTimeout()}
    internet.answers("/a", "200 OK", body=b"image")
    assert await internet.get("http://many.example/a") == b"image"
    assert internet.connected == [PUBLIC, second, third]


async def test_not_more_than_a_few_addresses_of_a_name_are_tried(internet: Internet) -> None:
    internet.names["many.example"] = [f"8.8.8.{last}" for last in range(200)]
    internet.down = dict.fromkeys(internet.names["many.example"], httpcore.ConnectError())
    with pytest.raises(FetchError, match=r"many\.example cannot be reached"):
        await internet.get("http://many.example/a")
    assert len(internet.connected) == 4


async def test_an_answer_that_changes_between_check_and_use_changes_nothing(internet: Internet) -> None:
    """DNS rebinding: the name is asked for once, and the connection goes to the address that was checked."""
    answers = [[PUBLIC], ["127.0.0.1"]]

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    internet.answers("/a", "200 OK", body=b"image")
    assert await internet.get("http://rebinding.example/a", resolve=resolve) == b"image"
    assert internet.connected == [PUBLIC]
    assert len(answers) == 1
    with pytest.raises(FetchError, match="cannot be reached"):
        await internet.get("http://rebinding.example/a", resolve=resolve)
    assert internet.connected == [PUBLIC]


async def test_a_name_server_that_does_not_answer_is_within_the_time(internet: Internet) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(FetchError, match="no complete answer within"):
        await asyncio.wait_for(internet.get("http://slow.example/", resolve=resolve, timeout=0.1), PATIENCE)


async def test_what_the_operator_opened_is_reached_and_no_more(internet: Internet) -> None:
    internet.names |= {"store.internal": ["10.9.9.9"], "other.internal": ["10.9.9.9"], "moved": ["10.1.2.3"]}
    internet.answers("/a", "200 OK", body=b"image")
    internet.answers("/away", "302 Found", "Location: http://10.2.0.1/")
    opened = Reachable(private=["10.1.0.0/16", "192.168.7.7", "fd00:1::/32", "Store.Internal"])
    for url in ("http://10.1.2.3/a", "http://192.168.7.7/a", "http://[fd00:1::5]/a", "http://store.internal/a",
                "http://[::ffff:10.1.2.3]/a", "http://moved/a"):  # fmt: skip
        assert await internet.get(url, reachable=opened) == b"image"
    count = len(internet.connected)
    for url in ("http://10.2.0.1/a", "http://192.168.7.8/a", "http://other.internal/a", "http://127.0.0.1/a"):
        with pytest.raises(FetchError):
            await internet.get(url, reachable=opened)
    assert len(internet.connected) == count
    with pytest.raises(ForbiddenAddressError):
        await internet.get("http://10.1.2.3/away", reachable=opened)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"X: " + b"x" * 1000 + b"\r\n",
        b"1\r\nx\r\n",
    ],
    ids=["interim answers", "headers", "chunks"],
)
async def test_what_never_ends_is_ended(internet: Internet, head: bytes) -> None:
    async def page(writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"X"):
            writer.write(b"HTTP/1.1 200 OK\r\n")
        elif head.startswith(b"1"):
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(head)
            await writer.drain()

    internet.pages["/a"] = page
    with pytest.raises(FetchError):
        await asyncio.wait_for(internet.get("http://public.example/a", timeout=0.3), PATIENCE)


async def test_a_line_break_in_a_url_is_no_header(internet: Internet) -> None:
    internet.answers("/aX:%20b", "200 OK", body=b"image")
    await internet.get("http://public.example/a\r\nX: b")
    assert b"\r\nX: b" not in internet.requests[0]
