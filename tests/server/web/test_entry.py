"""Ways in: links that sign in, samples, addresses of pictures; and sizes that fit."""

import base64
import io
import json
import re

import httpcore
import pytest
from PIL import Image
from sqlalchemy import Connection, update

from server.commands.sign_in import day_token, local_page, sign_in_link
from server.serving import EmbeddedServer
from server.state.tables import tokens
from tests.server.conftest import StartServer
from tests.server.support.harness import KEY, make_image
from tests.server.support.page import OpenPage, Page
from tests.server.support.web import Web


def test_a_link_signs_in_and_leaves_no_key_behind(server: EmbeddedServer, open_page: OpenPage) -> None:
    page = open_page(f"{server.url}/#key={KEY}")
    page.wait("#workspace")
    assert page.tab.url == f"{server.url}/"
    assert page.tab.evaluate("history.length") <= 2
    page.tab.reload()
    page.wait("#workspace")
    page.tab.once("dialog", lambda dialog: dialog.dismiss())
    page.tab.goto(f"{server.url}/#key=tw_of_somebody_else")
    page.until(lambda: page.tab.url == f"{server.url}/")
    assert page.tab.is_visible("#workspace")
    page.tab.once("dialog", lambda dialog: dialog.accept())
    page.tab.goto(f"{server.url}/#key=tw_of_somebody_else")
    page.wait("#key-error")
    page.tab.reload()
    page.wait("#workspace")


def test_a_token_signs_in_until_it_expires(server: EmbeddedServer, open_page: OpenPage) -> None:
    def token(seconds: int) -> str:
        body = json.dumps({"expiresIn": seconds, "models": ["fast"]}).encode()
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpcore.request("POST", f"{server.url}/v1/tokens", headers=headers, content=body)
        made: str = json.loads(answer.content)["token"]
        return made

    def is_over(token: str) -> bool:
        headers = {"Authorization": f"Bearer {token}"}
        return httpcore.request("POST", f"{server.url}/v1", headers=headers, content=b"[]").status == 401

    page = open_page(server.url)
    page.sign_in(token(600))
    page.choose()
    assert page.tab.locator("#model option").count() == 1
    assert page.tab.is_hidden("#credit")
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait_for("done")
    page.tab.once("dialog", lambda dialog: dialog.accept())
    page.tab.click("#sign-out")
    page.sign_in(short := token(1))
    page.wait("#workspace")
    page.until(lambda: is_over(short))
    page.tab.reload()
    page.wait("#key-error")
    assert "expired" in page.text("#key-error")
    page.tab.reload()
    page.wait("#key")
    assert page.tab.is_hidden("#key-error")


def test_tilewire_open_keeps_who_is_signed_in_and_takes_the_place_of_an_expired_sign_in(
    server: EmbeddedServer, open_page: OpenPage
) -> None:
    database = server.services.database

    def link() -> str:
        secret = database.run_sync(day_token, "default", server.services.clock(), KEY)
        return sign_in_link(local_page(server.url), secret)

    def expire(connection: Connection) -> None:
        connection.execute(update(tokens).values(expires=0.0))

    page = open_page(link())
    page.choose()
    page.add(holiday=make_image(40, 30))
    page.start()
    page.wait_for("done")
    token = page.tab.evaluate("localStorage.getItem('tilewire.key')")
    page.tab.goto(link())
    page.until(lambda: page.tab.url == f"{server.url}/")
    assert page.tab.evaluate("localStorage.getItem('tilewire.key')") == token, "the kept one is still valid"
    database.run_sync(expire)
    page.tab.goto("about:blank")
    page.tab.goto(link())
    page.until(lambda: page.tab.evaluate("localStorage.getItem('tilewire.key')") != token)
    page.wait("#workspace")
    page.wait_for("done")
    page.choose(factor=3)
    page.start()  # with the image that the old token has uploaded
    page.tab.locator("#sum", has_text="2 results").wait_for()


def test_a_sample_picture_shows_what_it_does(page: Page) -> None:
    page.tab.click("#sample")
    page.wait_for("ready")
    page.start()
    page.wait_for("done")
    page.wait("#split")


def test_pictures_of_other_sites_come_by_their_address(
    start_server: StartServer, open_page: OpenPage, web: Web
) -> None:
    web.files["/a%20lake.png"] = image = make_image(40, 30)
    page = open_page(start_server(private_networks=True).url)
    page.sign_in()
    page.choose()
    give = """([event, kind, text]) => {
        const transfer = new DataTransfer();
        transfer.setData(kind, text);
        const options = { bubbles: true, cancelable: true };
        const given = event === "drop"
            ? new DragEvent("drop", { ...options, dataTransfer: transfer })
            : new ClipboardEvent("paste", { ...options, clipboardData: transfer });
        document.body.dispatchEvent(given);
    }"""
    page.tab.evaluate(give, ["paste", "text/plain", f"{web.url}/a%20lake.png"])
    page.wait_for("ready", 1)
    assert page.text("#name") == "a lake.png"
    html = f'<meta charset="utf-8"><img src="data:image/png;base64,{base64.b64encode(image).decode()}">'
    page.tab.evaluate(give, ["paste", "text/html", html])
    page.wait_for("ready", 2)
    page.tab.evaluate(give, ["drop", "text/uri-list", f"{web.url}/none.png"])
    page.tab.locator("#notices", has_text="none.png").wait_for()
    page.tab.evaluate(give, ["paste", "text/plain", "no address"])
    assert page.tab.locator("#strip li").count() == 2


def test_the_largest_factor_that_fits_is_chosen_and_offered(
    start_server: StartServer, open_page: OpenPage
) -> None:
    page = open_page(start_server(max_output_megapixels=0.02).url)
    page.sign_in()
    page.wait("#model option", "attached")
    page.tab.select_option("#model", label="Real-ESRGAN animevideo v3")

    def factor() -> str:
        return str(page.tab.evaluate("document.querySelector('input[name=size]:checked').value"))

    assert factor() == "4"
    page.add(lake=make_image(60, 40))
    assert factor() == "2"
    assert page.text("#estimate").startswith("120 × 80 pixels")
    page.tab.check("input[name=size][value='4']", force=True)
    assert page.text("#estimate") == (
        "lake.png: 240 × 160 pixels are more than the 0.02 megapixels that this server makes."
    )
    assert page.tab.is_disabled("#start")
    page.tab.click("#use-smaller:text-is('Use 2×')")
    page.start()
    page.wait_for("done")


def test_sizes_are_named_in_other_ways(page: Page) -> None:
    page.add(holiday=make_image(400, 300))
    page.tab.check("input[name=size][value=other]", force=True)
    for way, number, size in [
        ("factor", "1.5", (600, 450)),
        ("megapixels", "0.48", (800, 600)),
        ("width", "700", (700, 525)),
        ("height", "602", (803, 602)),
    ]:
        page.tab.select_option("#size-way", way)
        page.tab.fill("#size-amount", "0")
        assert re.match(r"Enter a (whole )?number from [\d.]+ to \d+\.", page.text("#size-error"))
        assert page.tab.is_disabled("#start")
        page.tab.fill("#size-amount", number)
        page.wait("#size-error", "hidden")
        page.start()
        page.until(lambda size=size: result_size(page) == size)
    page.tab.select_option("#size-way", "4k")
    assert page.text("#estimate").startswith("2880 × 2160 pixels")
    page.tab.select_option("#size-way", "exact")
    page.tab.fill("#size-amount", "500")
    page.tab.fill("#size-second", "0")
    assert page.tab.is_disabled("#start")
    page.tab.fill("#size-second", "450")
    page.tab.select_option("#size-mode", "stretch")
    assert page.text("#estimate").startswith("500 × 450 pixels")
    page.tab.select_option("#size-mode", "fill")
    assert page.text("#estimate").startswith("600 × 450 pixels")
    page.tab.select_option("#size-mode", "crop")
    page.start()
    page.until(lambda: result_size(page) == (500, 450))
    page.tab.fill("#size-amount", "7000")
    assert page.text("#estimate") == "holiday.png: that is more than 16 times its sides."


def result_size(page: Page) -> tuple[int, int] | None:
    """Of the picture that is shown, once it is a result."""
    return page.shown("#after-pixels img").size if page.tab.is_visible("#after-pixels img") else None


@pytest.mark.slow
def test_4k_is_what_fits_into_it(page: Page) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 1000)).save(buffer, "PNG")
    page.add(wide=buffer.getvalue())
    page.tab.check("input[name=size][value=other]", force=True)
    page.tab.select_option("#size-way", "4k")
    assert page.text("#estimate").startswith("3840 × 1280 pixels")


def test_the_page_opens_without_a_network(server: EmbeddedServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.tab.evaluate("navigator.serviceWorker.ready.then(() => null)")
    page.tab.reload()  # through the service worker, which keeps what it sees
    page.until(
        lambda: (
            page.tab.evaluate(
                "caches.open('tilewire').then((kept) => kept.keys()).then((keys) => keys.length)"
            )
            > 40
        )
    )
    page.context.set_offline(True)
    page.tab.reload()
    page.wait("#sign-in")
    page.sign_in()
    page.tab.locator("#key-error", has_text="cannot be reached").wait_for()
    page.context.set_offline(False)
    page.wait("#workspace")
    page.complaints[:] = [line for line in page.complaints if "ERR_INTERNET_DISCONNECTED" not in line]
