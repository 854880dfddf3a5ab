"""Requests in the shapes of other services, and what comes back."""

import json
from typing import Any, NamedTuple

import httpcore

from server.serving import EmbeddedServer
from tests.server.support.harness import KEY

__all__ = ["BEARER", "Answer", "ask", "finished"]

BEARER = {"authorization": f"Bearer {KEY}"}
_BOUNDARY = "--------tilewire"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(server: EmbeddedServer, method: str, path: str, **more: Any) -> Answer:
    """Send a request; `form` and `body` are encoded."""
    headers = dict(more.get("headers", BEARER))
    content = b""
    if (form := more.get("form")) is not None:
        headers["content-type"] = f"multipart/form-data; boundary={_BOUNDARY}"
        content = _encoded_form(form)
    elif (body := more.get("body")) is not None:
        headers["content-type"] = "application/json"
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpcore.request(method, server.url + path, headers=headers, content=content)
    fields = {name.decode().lower(): value.decode() for name, value in response.headers}
    return Answer(response.status, fields, response.content)


def _encoded_form(parts: dict[str, str | bytes]) -> bytes:
    lines = b""
    for name, value in parts.items():
        data = value.encode() if isinstance(value, str) else value
        lines += f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        lines += data + b"\r\n"
    return lines + f"--{_BOUNDARY}--\r\n".encode()


def finished(server: EmbeddedServer, path: str, is_done: Any) -> Answer:
    """What a poll gives in the end."""
    while not is_done(answer := ask(server, "GET", path)):
        pass
    return answer
