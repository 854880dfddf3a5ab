"""`tilewire open`: the page of a running server, with nothing to type."""

import re
import stat
from pathlib import Path

import httpcore
import pytest

from server.commands.sign_in import local_page
from tests.server.conftest import Tilewire
from tests.server.support.process import serving


def test_a_link_that_signs_in_is_printed_where_there_is_no_screen_and_a_browser_gets_a_private_file(
    tilewire: Tilewire, tmp_path: Path, model_directory: Path
) -> None:
    state, data = str(tmp_path / "state"), tmp_path / "data"
    screenless = {"XDG_STATE_HOME": state, "TILEWIRE_DATA": str(data), "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    with serving(data, model_directory, XDG_STATE_HOME=state, TILEWIRE_API_KEY="") as server:
        printed = tilewire("open", **screenless, TILEWIRE_API_KEY="")
        found = re.fullmatch(re.escape(server.url) + r"/#key=(twt_[\w-]{43})&stay\n", printed.stdout)
        assert found is not None, (printed.stdout, printed.stderr)
        headers = {"Authorization": f"Bearer {found[1]}"}
        ping = b'[{"taskType":"ping"}]'
        assert httpcore.request("POST", f"{server.url}/v1", headers=headers, content=ping).status == 200
        opened = tmp_path / "opened"
        browser = tmp_path / "browser"
        browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}\n', encoding="utf-8")
        browser.chmod(0o700)
        shown = screenless | {"DISPLAY": ":9", "BROWSER": f"{browser} %s", "TILEWIRE_API_KEY": ""}
        assert "in the browser" in tilewire("open", **shown).stdout
        file = Path(opened.read_text(encoding="utf-8").removeprefix("file://"))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert f"{server.url}/#key=twt_" in file.read_text(encoding="utf-8")
        nobody = tilewire("open", "--account", "nobody", **screenless, TILEWIRE_API_KEY="")
        assert (nobody.exit_code, "'nobody' has no valid key" in nobody.stderr) == (2, True)
    gone = tilewire("open", **screenless)
    assert (gone.exit_code, "tilewire serve" in gone.stderr) == (1, True)


@pytest.mark.parametrize(
    ("listens", "page"),
    [
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080/"),
        ("https://[::]:1", "https://[::1]:1/"),
        ("http://box:80", "http://box:80/"),
    ],
)
def test_the_page_is_where_a_browser_of_this_machine_finds_it(listens: str, page: str) -> None:
    assert local_page(listens) == page
