"""AsyncAPI's own generator makes a client of our document, and that works against a running server."""

import base64
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpcore
import pytest

from server.serving import EmbeddedServer
from tests.server.support.harness import KEY, PATIENCE, make_image, new_uuid, socket_url
from tests.server.support.npm import npm_install

SCRIPTS = Path(__file__).parents[1] / "support" / "js"
GENERATOR = "@asyncapi/generator@3.4.1"
"""Pinned: 2.11, which npm chooses for older versions of Node, does not end."""

USE = """
import json, queue, sys
from client import Tilewire

url, key, task_uuid, image = sys.argv[1:]
answers, opened = queue.Queue(), queue.Queue()
client = Tilewire(url)
client.register_message_handler(answers.put)
client.on_open = lambda _: opened.put(None)
client.connect()
opened.get()
client.authentication({"taskType": "authentication", "apiKey": key})
assert "data" in json.loads(answers.get())
task = {"taskType": "upscale", "taskUUID": task_uuid, "inputs": {"image": image}}
client.upscale(task | {"model": "realesr-animevideov3", "upscaleFactor": 2})
(result,) = json.loads(answers.get())["data"]
client.cancel({"taskType": "cancel", "taskUUID": task_uuid, "targetTaskUUID": task_uuid})
(error,) = json.loads(answers.get())["errors"]
print(json.dumps({"result": result, "error": error}), file=sys.stderr)
"""


def run(directory: Path, *command: str) -> str:
    """What a program prints to its standard error."""
    done = subprocess.run(
        command, cwd=directory, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_client_in_python_that_is_generated_of_the_document_upscales_an_image(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    if importlib.util.find_spec("websocket") is None:
        pytest.skip("websocket-client, which generated clients use, is not installed")
    npm_install(tmp_path, GENERATOR, patience=300)
    shutil.copy(SCRIPTS / "generate.cjs", tmp_path)
    document = httpcore.request("GET", f"{server.url}/asyncapi-client.json").content
    (tmp_path / "document.json").write_bytes(document)
    client = tmp_path / "generated"
    template = "core-template-client-websocket-python"
    run(tmp_path, "node", "generate.cjs", "document.json", template, str(client))
    (client / "use.py").write_text(USE, encoding="utf-8")
    image, task_uuid = base64.b64encode(make_image()).decode(), new_uuid()
    printed = json.loads(run(client, sys.executable, "use.py", socket_url(server), KEY, task_uuid, image))
    assert printed["result"]["taskUUID"] == task_uuid
    assert printed["result"]["imageURL"].startswith(f"{server.url}/images/")
    assert printed["error"]["code"] == "taskNotFound"
