"""Packages of the catalogue, where somebody has put them into a folder: no test fetches one."""

import os
from functools import cache
from pathlib import Path

from onnx_models.files import sha256_of

ARCHIVES = "TILEWIRE_TEST_ARCHIVES"
"""The variable that names the folder."""


@cache
def archive_at_hand(sha256: str) -> Path | None:
    folder = os.environ.get(ARCHIVES)
    files = Path(folder).iterdir() if folder else ()
    return next((file for file in files if file.is_file() and sha256_of(file) == sha256), None)
