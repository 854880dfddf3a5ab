"""The providers' endpoints in `/openapi.json`."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from starlette.routing import compile_path

from server.http.providers.routes import ServiceRoute

__all__ = ["described"]


def described(routes: Iterable[ServiceRoute]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The paths of an OpenAPI document, and the schemas that they refer to."""
    routes = list(routes)
    names = {
        route.body: f"{route.provider.title()}{route.body.__name__}"
        for route in routes
        if route.body is not None
    }
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for number, route in enumerate(routes):
        operation = {
            "operationId": f"{route.provider}_{route.operation}_{number}",
            "tags": [route.provider],
            "summary": route.summary,
            "security": [{"apiKey": []}],
            "responses": {
                "200": {"description": "As the service answers."},
                "default": {"description": "An error in the service's shape."},
            },
        }
        if parameters := [_path_parameter(name) for name in compile_path(route.path)[2]]:
            operation["parameters"] = parameters
        if route.body is not None:
            name = names[route.body]
            schemas |= _schemas(route.body, name)
            operation["requestBody"] = _content("application/json", {"$ref": f"#/components/schemas/{name}"})
        elif route.form is not None:
            operation["requestBody"] = _content("multipart/form-data", _form(route.form))
        method = next(iter((route.methods or set()) - {"HEAD"})).lower()
        paths.setdefault(route.path, {})[method] = operation
    return paths, schemas


def _schemas(body: type[msgspec.Struct], name: str) -> dict[str, Any]:
    """The schema of a body, and of what is in it, under names that no other service's have."""
    template = f"#/components/schemas/{name}{{name}}"
    (_,), found = msgspec.json.schema_components([body], ref_template=template)
    renamed = {f"{name}{inner}": schema for inner, schema in found.items()}
    renamed[name] = renamed.pop(f"{name}{body.__name__}")
    return renamed


def _content(media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {media_type: {"schema": schema}}}


def _form(parts: Mapping[str, str]) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": about} for name, about in parts.items()}
    properties["image"] |= {"contentMediaType": "application/octet-stream"}
    return {"type": "object", "properties": properties, "required": ["image"]}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
