"""What the server offers over HTTP, as an OpenAPI 3.1 document."""

from functools import cache
from http import HTTPStatus
from typing import Any, Final

from server.images.store import MEDIA_TYPES
from server.protocol.codec import JSON, MESSAGEPACK
from server.protocol.error_codes import CODES, FAMILIES
from server.protocol.requests import TASK_CLASSES
from server.specs import examples
from server.specs.schemas import Schema, components, schema_name, task_type
from server.specs.version import VERSION

__all__ = ["openapi"]

_DESCRIPTION: Final = (
    "The tasks that the WebSocket takes, by POST, and the images by GET. The WebSocket itself is described "
    "by `/asyncapi.json`, and both by `/docs`."
)


@cache
def openapi() -> dict[str, Any]:
    """The document, without the address of the server: it is where the document came from."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Tilewire",
            "summary": "Image upscaling",
            "description": _DESCRIPTION,
            "version": VERSION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "externalDocs": {"url": "/docs", "description": "How to use it"},
        "paths": {
            "/": {"post": _post("postTasksToRoot")},
            "/v1": {"post": _post("postTasks")},
            "/v1/tokens": {"post": _post_token()},
            "/images/{name}": {"get": _image("getImage"), "head": _image("headImage")},
            "/healthz": {"get": _text("getHealth", "Whether the server answers at all", {200: "It does."})},
            "/readyz": {
                "get": _text(
                    "getReadiness",
                    "Whether tasks can be run",
                    {200: "They can.", 503: "No device works any longer."},
                )
            },
            "/metrics": {
                "get": _text(
                    "getMetrics",
                    "How the server fares, in Prometheus' text format",
                    {
                        200: "The metrics.",
                        403: "Only the server's own machine may see them.",
                        404: "They are off.",
                    },
                )
            },
        },
        "components": {
            "schemas": components() | {"Task": components()["Task"] | {"discriminator": _discriminator()}},
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key. An `authentication` task that comes first does as well.",
                }
            },
        },
    }


def _discriminator() -> Schema:
    mapping = {task_type(task): f"#/components/schemas/{schema_name(task)}" for task in TASK_CLASSES}
    return {"propertyName": "taskType", "mapping": mapping}


def _post(operation: str) -> Schema:
    by_status: dict[int, list[str]] = {}
    for code, about in CODES.items():
        by_status.setdefault(about.status, []).append(f"`{code}`")
    by_status[400] += [f"`{family}…`" for family in FAMILIES]
    return {
        "operationId": operation,
        "summary": "Run tasks",
        "description": "All tasks of the array, at the same time; the response has all their replies.",
        "security": [{"apiKey": []}, {}],
        "requestBody": {
            "required": True,
            "content": {
                JSON.media_type: {
                    "schema": {"$ref": "#/components/schemas/Tasks"},
                    "examples": {name: {"value": [task]} for name, task in examples.REQUESTS.items()},
                },
                MESSAGEPACK.media_type: {"schema": {"$ref": "#/components/schemas/Tasks"}},
            },
        },
        "responses": {
            "200": _answer(
                "Something succeeded; or there was nothing to do.",
                "Response",
                {name: {"value": {"data": [item]}} for name, item in examples.REPLIES.items()},
            ),
            **{
                str(status): _answer(
                    f"{HTTPStatus(status).phrase}. Nothing succeeded; the first error: {' or '.join(codes)}.",
                    "Errors",
                    {"error": {"value": {"errors": [examples.ERROR]}}} if status == 400 else {},
                )
                for status, codes in sorted(by_status.items())
            },
        },
    }


def _post_token() -> Schema:
    def content(name: str) -> Schema:
        return {JSON.media_type: {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    refusals = {400: "A field is wrong.", 401: "There is no valid key.", 403: "A token cannot make tokens."}
    return {
        "operationId": "postToken",
        "summary": "Make a token for a web page",
        "description": "Short-lived and limited; it goes wherever a key goes, and sees only what it began.",
        "security": [{"apiKey": []}],
        "requestBody": {"required": True, "content": content("NewToken")},
        "responses": {
            "201": {"description": "The token.", "content": content("NewTokenResult")},
            **{
                str(status): {"description": why, "content": content("Errors")}
                for status, why in refusals.items()
            },
        },
    }


def _answer(description: str, schema: str, shown: Schema) -> Schema:
    body = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {
        "description": description,
        "content": {
            JSON.media_type: body | ({"examples": shown} if shown else {}),
            MESSAGEPACK.media_type: body,
        },
    }


def _image(operation: str) -> Schema:
    body: Schema = {}
    if operation == "getImage":
        body["content"] = {media_type: {} for media_type in MEDIA_TYPES.values()}
    return {
        "operationId": operation,
        "summary": "An upload or a result",
        "description": "For whoever knows its name, until its `ttl` has passed.",
        "parameters": [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
            {
                "name": "Range",
                "in": "header",
                "description": "One range of bytes.",
                "schema": {"type": "string"},
                "example": "bytes=0-1023",
            },
            {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
        ],
        "responses": {
            "200": {"description": "The image.", **body},
            "206": {"description": "The range of it that was asked for.", **body},
            "304": {"description": "It is the one that the client has."},
            "404": {"description": "There is no such image, or no more."},
            "416": {"description": "The range begins behind the end."},
        },
    }


def _text(operation: str, summary: str, answers: dict[int, str]) -> Schema:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {
            str(status): {
                "description": description,
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
            for status, description in answers.items()
        },
    }
