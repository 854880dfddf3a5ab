"""Which web pages may use the server."""

import httpcore
from websockets.exceptions import InvalidStatus

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import KEY, Peer, open_socket

SHOP, OTHER = "https://shop.example", "https://other.example"


async def may_connect(server: EmbeddedServer, origin: str | None) -> bool:
    headers = {} if origin is None else {"Origin": origin}
    try:
        async with open_socket(server, additional_headers=headers) as socket:
            await Peer(socket).authenticate()
            return True
    except InvalidStatus as refusal:
        if refusal.response.status_code != 403:
            raise
        return False


async def allowed_by_http(server: EmbeddedServer, origin: str) -> str | None:
    """The allowed origin that a browser is told; the same before a request and with its answer."""
    async with httpcore.AsyncConnectionPool() as pool:
        asked = await pool.request(
            "OPTIONS",
            f"{server.url}/v1",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
                "Access-Control-Request-Private-Network": "true",
            },
        )
        answer = await pool.request(
            "POST",
            f"{server.url}/v1",
            headers={"Origin": origin, "Authorization": f"Bearer {KEY}"},
            content=b"[]",
        )
    before, with_it = (
        dict(response.headers).get(b"access-control-allow-origin") for response in (asked, answer)
    )
    assert before == with_it
    assert (asked.status == 200) == (before is not None)
    assert not {name for name, _ in answer.headers if name == b"access-control-allow-credentials"}
    return before and before.decode()


async def test_pages_of_every_origin_may_by_default(server: EmbeddedServer) -> None:
    for origin in (None, SHOP, "null", server.url):
        assert await may_connect(server, origin)
    assert await allowed_by_http(server, SHOP) == "*"


async def test_a_list_of_origins_keeps_out_the_others_but_neither_programs_nor_the_servers_own_page(
    start_server: StartServer,
) -> None:
    server = start_server(allowed_origins=[SHOP])
    for origin in (None, SHOP, server.url):
        assert await may_connect(server, origin)
    port = server.url.rpartition(":")[2]
    for origin in (OTHER, "null", "http://shop.example", f"{SHOP}.evil.example", f"https://127.0.0.1:{port}"):
        assert not await may_connect(server, origin)
    assert await allowed_by_http(server, SHOP) == SHOP
    assert await allowed_by_http(server, OTHER) is None


async def test_with_an_empty_list_only_the_servers_own_page_may(start_server: StartServer) -> None:
    server = start_server(allowed_origins=[])
    assert not await may_connect(server, SHOP)
    assert await may_connect(server, server.url)
