"""Novita's official JavaScript client, on Node, against this server: the last with v2, and today's with v3.

Skipped where npm cannot install it.
"""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpcore
import pytest

from server.serving import EmbeddedServer
from tests.server.support.harness import FAST_MODEL, KEY, make_image, open_image
from tests.server.support.npm import npm_install

SCRIPT = Path(__file__).parents[1] / "support" / "js" / "novita.mjs"
PATIENCE = 120


@pytest.mark.slow
@pytest.mark.parametrize(("version", "code"), [("1.0.31", 2), ("3.1.3", 400)])
def test_an_image_is_upscaled_and_a_mistake_is_named(
    server: EmbeddedServer, tmp_path: Path, version: str, code: int
) -> None:
    npm_install(tmp_path, f"novita-sdk@{version}", "axios@1")
    shutil.copy(SCRIPT, tmp_path)
    image = base64.b64encode(make_image(24, 16)).decode()
    script = subprocess.run(
        ["node", SCRIPT.name, server.url, KEY, image, FAST_MODEL],
        cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert script.returncode == 0, script.stderr.decode()
    told: dict[str, Any] = json.loads(script.stdout)
    (url,) = told["images"]
    data = (
        base64.b64decode(url.partition(",")[2])
        if url.startswith("data:")
        else httpcore.request("GET", url).content
    )
    assert open_image(data).size == (48, 32)
    assert told["refused"]["code"] == code
    assert "no-such-model" in told["refused"]["message"]
