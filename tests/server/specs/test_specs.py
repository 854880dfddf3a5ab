"""The published descriptions are valid, and say what the server does."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from server.app import create_app
from server.http.providers.routes import Fallback
from server.http.specs import document
from server.protocol.requests import TASK_CLASSES
from server.serving import EmbeddedServer
from server.settings import Settings
from server.specs import examples
from server.specs.schemas import MESSAGE_CLASSES, components, schema_name, standalone, task_type
from tests.server.protocol.test_bad_input import BAD, Bad
from tests.server.support.harness import KEY, PATIENCE, Item, connected, make_image, new_uuid, upscale
from tests.server.support.npm import npm_install

IMAGE = base64.b64encode(make_image()).decode()
FOR_BROWSERS_AND_TOOLS = {
    ("/", "get"),
    ("/web/{digest}/{name:path}", "get"),
    ("/manifest.webmanifest", "get"),
    ("/service-worker.js", "get"),
    ("/client.js", "get"),
    ("/client.d.ts", "get"),
    ("/docs", "get"),
    ("/docs/docs.css", "get"),
    ("/docs/docs.js", "get"),
    ("/docs/search.json", "get"),
    ("/docs/{page}", "get"),
    ("/openapi.json", "get"),
    ("/asyncapi.json", "get"),
    ("/asyncapi-client.json", "get"),
    ("/schemas/{name}.json", "get"),
}
"""Neither tasks nor images: not described."""

ALONE = {"authentication", "ping", "cancel"}
"""Tasks whose examples are sent by other tests: they have no UUID, or need a task that runs."""

BEYOND_SCHEMAS = {
    "steps",  # that this model has none
    "unknown target", "unknown task", "too large a result", "too large a target", "target out of reach",
    "target smaller than the image", "model", "safety checker",
    "private upload endpoint",
}  # fmt: skip
"""What a schema cannot know: which images, tasks and models there are, and what is behind a URL."""


def get(url: str) -> Any:
    response = httpcore.request("GET", url)
    assert response.status == 200
    return json.loads(response.content)


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(standalone(name))


def strict(schema: Any) -> Any:
    """A schema that allows no fields but those that it names."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(part) for name, part in schema.items()}
    return closed | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else closed


def assert_told(name: str, item: Item) -> None:
    """The item is what the schema says, and has nothing that the schema does not name."""
    Draft202012Validator(strict(standalone(name))).validate(item)


@pytest.mark.parametrize("name", components())
def test_every_message_is_published_as_a_valid_schema(server: EmbeddedServer, name: str) -> None:
    Draft202012Validator.check_schema(get(f"{server.url}/schemas/{name}.json"))


def test_an_unknown_schema_is_not_found(server: EmbeddedServer) -> None:
    assert httpcore.request("GET", f"{server.url}/schemas/Nothing.json").status == 404


def test_everything_in_the_schemas_is_described() -> None:
    for struct in MESSAGE_CLASSES:
        schema = components()[schema_name(struct)]
        assert schema["description"]
        for name, field in schema["properties"].items():
            if name != "taskType" and schema_name(struct) in {kind.__name__ for kind in TASK_CLASSES}:
                assert field.get("description") or "$ref" in field, f"{schema_name(struct)}.{name}"


def test_the_openapi_document_is_valid(server: EmbeddedServer) -> None:
    assert [
        error.message for error in OpenAPIV31SpecValidator(get(f"{server.url}/openapi.json")).iter_errors()
    ] == []


def test_the_openapi_document_has_every_route_that_the_server_has() -> None:
    routes = {
        (route.path, method.lower())
        for route in create_app(Settings()).routes
        if isinstance(route, Route) and not isinstance(route, Fallback)  # which answers with errors alone
        for method in route.methods or ()
    } - FOR_BROWSERS_AND_TOOLS
    documented = {(path, method) for path, item in document()["paths"].items() for method in item}
    # Starlette adds HEAD to every GET; only where it does something of its own is it worth a word.
    assert {route for route in routes - documented if route[1] != "head"} == set()
    assert documented - routes == set()


@pytest.mark.slow  # npm installs its parser
def test_the_asyncapi_document_is_valid(
    server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("asyncapi")
    npm_install(directory, "@asyncapi/parser@3")
    shutil.copy(Path(__file__).parents[1] / "support" / "js" / "asyncapi.mjs", directory)
    document = directory / "asyncapi.json"
    document.write_text(json.dumps(get(f"{server.url}/asyncapi.json")), encoding="utf-8")
    parsed = subprocess.run(
        ["node", "asyncapi.mjs", document],
        cwd=directory,
        check=True,
        capture_output=True,
        timeout=2 * PATIENCE,
    )
    found = json.loads(parsed.stdout)
    assert found["wrong"] == []
    assert {f"json-{task_type(task)}" for task in TASK_CLASSES} <= set(found["operations"])


def test_the_asyncapi_document_names_the_server(server: EmbeddedServer) -> None:
    (named,) = get(f"{server.url}/asyncapi.json")["servers"].values()
    assert f"{named['protocol']}://{named['host']}" == server.url.replace("http", "ws")


@pytest.mark.parametrize("name", examples.REPLIES)
def test_examples_of_replies_are_what_the_schemas_say(name: str) -> None:
    assert_told(name, examples.REPLIES[name])


def test_the_example_of_an_error_is_what_the_schema_says() -> None:
    assert_told("ErrorItem", examples.ERROR)


def test_the_example_of_a_tile_is_what_the_schema_says() -> None:
    assert_told("Progress", examples.TILE)


def test_there_is_an_example_of_everything() -> None:
    tasks = {schema_name(task) for task in TASK_CLASSES}
    assert examples.REQUESTS.keys() == {task_type(task) for task in TASK_CLASSES}
    assert examples.REPLIES.keys() == {schema_name(kind) for kind in MESSAGE_CLASSES} - tasks - {"ErrorItem"}


async def test_the_examples_of_requests_are_taken_by_the_server(server: EmbeddedServer) -> None:
    """With the UUIDs of an image and a task that there are, as a reader would put in."""
    tasks = json.dumps([task for task in examples.REQUESTS.values() if task["taskType"] not in ALONE])
    async with connected(server) as peer:
        (upload,) = await peer.ask(examples.REQUESTS["imageUpload"])
        assert_told("ImageUploadResult", upload)
        image = examples.REQUESTS["upscale"]["inputs"]["image"]
        (upscaled,) = await peer.ask(upscale(IMAGE))
        for task in json.loads(tasks.replace(image, upload["imageUUID"])):
            validator("Task").validate(task)
            changes: Item = {}
            if task["taskType"] in ("upscale", "imageUpscale"):
                changes = {"taskUUID": new_uuid(), "model": "realesr-animevideov3"}
            elif task["taskType"] in ("getResponse", "getTaskDetails"):
                changes = {"taskUUID": upscaled["taskUUID"]}
            (reply,) = await peer.ask(task | changes)
            assert "code" not in reply, reply
        await peer.nothing_more()


async def test_replies_are_what_the_schemas_say(server: EmbeddedServer) -> None:
    async with connected(server, key=None) as peer:
        assert_told("AuthenticationResult", await peer.authenticate())
        await peer.send({"taskType": "ping"})
        assert_told("PingResult", await peer.receive_item())
        everything = upscale(
            IMAGE, outputType=["URL", "base64Data", "dataURI"], includeCost=True, somethingNew=90
        )
        result, models, account, upload = await peer.ask(
            everything,
            {"taskType": "modelSearch", "taskUUID": new_uuid()},
            {"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "getDetails"},
            {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": IMAGE},
        )
        assert_told("UpscaleResult", result)
        assert result["warnings"]
        assert_told("ModelSearchResult", models)
        assert_told("AccountManagementResult", account)
        assert_told("ImageUploadResult", upload)
        assert_told("UpscaleResult", await peer.finished(everything["taskUUID"]))


async def test_progress_and_cancellations_are_what_the_schemas_say(server: EmbeddedServer) -> None:
    task = upscale(base64.b64encode(make_image(1500, 190)).decode(), includeProgress=True, includeTiles=True)
    async with connected(server) as peer:
        await peer.send(task)
        item = await peer.receive_item()
        assert_told("Progress", item)
        cancel = {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": task["taskUUID"]}
        await peer.send(cancel)
        replies: dict[str, Item] = {}
        while not {cancel["taskUUID"], task["taskUUID"]} <= replies.keys():
            item = await peer.receive_item()
            if item.get("status") != "processing":
                replies[item["taskUUID"]] = item
        assert_told("ErrorItem", replies[task["taskUUID"]])
        assert_told("CancelResult", replies[cancel["taskUUID"]])


def beyond(bad: Bad) -> bool:
    """Whether only the server can know what is wrong."""
    if bad.parameter == "inputs.image" and isinstance(bad.changes["inputs"]["image"], str):
        return bad.name != "empty"
    return bad.name in BEYOND_SCHEMAS


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_what_the_server_refuses_the_schemas_refuse_unless_they_cannot_know(bad: Bad) -> None:
    assert validator("Task").is_valid(bad.task()) == beyond(bad)


def good() -> Iterator[Item]:
    for changes in (
        {"taskType": "imageUpscale", "inputs": {}, "inputImage": IMAGE},
        {"upscaleFactor": 1.5},
        {"upscaleFactor": None, "targetMegapixels": 0.001},
        {"upscaleFactor": 2, "targetMegapixels": None},
        {"outputType": ["dataURI", "URL"]},
        {"outputFormat": "JPG", "outputQuality": 20},
        {"outputQuality": 99, "ttl": 1},
        {"deliveryMethod": "async", "includeCost": True, "includeProgress": True, "keepMetadata": True},
        {"keepHiddenColors": True, "outputFormat": "PNG"},
        {
            "denoise": {"strength": 0},
            "faceRestoration": {"visibility": 0, "weight": 0.5, "upscaleFirst": True},
        },
        {"checkNSFW": False, "safety": {"checkContent": False}, "settings": {}, "numberResults": 1},
        {"safety": None, "settings": None, "webhookURL": None, "uploadEndpoint": None, "model": None},
        {"somethingNew": 1},
        {"taskUUID": new_uuid().upper()},
    ):
        yield upscale(IMAGE) | changes | ({"model": "realesr-animevideov3"} if "model" in changes else {})
    yield {"taskType": "modelSearch", "taskUUID": new_uuid(), "search": "x", "category": None, "limit": 1}


async def test_what_the_schemas_take_the_server_takes(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        for task in good():
            validator("Task").validate(task)
            (reply,) = await peer.ask(task)
            assert "code" not in reply, reply


def test_refused_keys_get_a_documented_error(server: EmbeddedServer) -> None:
    response = httpcore.request(
        "POST", f"{server.url}/v1", content=b"[]", headers={"Authorization": "Bearer x"}
    )
    assert KEY not in response.content.decode()
    validator("Errors").validate(json.loads(response.content))
