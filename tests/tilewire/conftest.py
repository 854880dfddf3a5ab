"""The client is tested against real servers: the fixtures are those of the server's tests."""

from tests.server.conftest import (
    _no_handler_is_left,
    device,
    server,
    server_database,
    start_server,
    web,
)

__all__ = ["_no_handler_is_left", "device", "server", "server_database", "start_server", "web"]
