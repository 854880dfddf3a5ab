"""What a load balancer is told."""

from types import SimpleNamespace

import pytest
from starlette.requests import Request

from server.app import create_app
from server.http.pages import get_health, get_readiness
from server.settings import Settings


@pytest.mark.parametrize(("usable", "status"), [(True, 200), (False, 503)])
async def test_the_server_is_ready_while_a_device_works(usable, status):
    app = create_app(Settings())
    app.state.services = SimpleNamespace(upscaler=SimpleNamespace(usable=usable))
    request = Request({"type": "http", "app": app})
    assert (await get_readiness(request)).status_code == status
    assert (await get_health(request)).status_code == 200
