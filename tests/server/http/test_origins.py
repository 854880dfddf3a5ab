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


async def test_a_page_whose_name_leads_to_this_machine_is_not_the_servers_own(
    start_server: StartServer,
) -> None:
    for public_url, name, allowed in (
        (None, "evil.example", False),
        ("https://up.example", "evil.example", False),
        ("http://up.example", "up.example", True),
        (None, "localhost", True),
    ):
        server = start_server(allowed_origins=[], public_url=public_url)
        async with httpcore.AsyncConnectionPool() as pool:
            response = await pool.request(
                "POST",
                f"{server.url}/v1",
                headers={"Origin": f"http://{name}", "Host": name, "Authorization": f"Bearer {KEY}"},
                content=b"[]",
            )
        assert response.status == (200 if allowed else 403), name
        server.stop()


async def test_a_post_of_another_page_is_refused_before_its_key_is_looked_at(
    start_server: StartServer,
) -> None:
    server = start_server(allowed_origins=[SHOP], failed_authentications_per_minute=1)
    headers = {"Origin": OTHER, "Authorization": "Bearer wrong"}
    async with httpcore.AsyncConnectionPool() as pool:
        for origin, status in ((OTHER, 403), (OTHER, 403), (SHOP, 401), (SHOP, 429)):
            asked = headers | {"Origin": origin}
            response = await pool.request("POST", f"{server.url}/v1", headers=asked, content=b"[]")
            assert response.status == status


async def test_with_an_empty_list_only_the_servers_own_page_may(start_server: StartServer) -> None:
    server = start_server(allowed_origins=[])
    assert not await may_connect(server, SHOP)
    assert await may_connect(server, server.url)
