"""Where a server is, as people write it."""

import pytest

from server.commands.address import http_address, socket_address


@pytest.mark.parametrize(
    ("written", "page", "socket"),
    [
        ("ws://host:8080/v1", "http://host:8080", "ws://host:8080/v1"),
        ("ws://host/v1/", "http://host", "ws://host/v1"),
        ("http://host:8080", "http://host:8080", "ws://host:8080/v1"),
        ("http://host:8080/", "http://host:8080", "ws://host:8080/v1"),
        ("https://host/tilewire/", "https://host/tilewire", "wss://host/tilewire/v1"),
        ("wss://host/tilewire/v1", "https://host/tilewire", "wss://host/tilewire/v1"),
        ("HTTP://[::1]:8080", "http://[::1]:8080", "ws://[::1]:8080/v1"),
        ("unix:///run/s.sock", "unix:///run/s.sock", "unix:///run/s.sock"),
        ("localhost:8080", "http://localhost:8080", "ws://localhost:8080/v1"),
    ],
)
def test_all_forms_lead_to_the_same_server(written: str, page: str, socket: str) -> None:
    assert (http_address(written), socket_address(written)) == (page, socket)


@pytest.mark.parametrize(
    "written",
    ["", "host", "ftp://host", "http://", "http://host:x", "host:99999", "ws://:1", "unix://s.sock"],
)
def test_anything_else_is_refused_with_all_forms(written: str) -> None:
    with pytest.raises(ValueError, match="http://host:port, ws://host:port/v1 or unix:///path"):
        socket_address(written)
