"""Node packages that tests need, installed as they go. Without Node or a registry those tests are skipped."""

import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL_PATIENCE = 60


def install(directory: Path, package: str, purpose: str) -> None:
    """Install a package into `directory`, or skip the test, saying what is not tested."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(f"{purpose} is not tested: node or npm is not installed")
    (directory / "package.json").write_text('{"private": true}')
    command = [npm, "install", package, "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=INSTALL_PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{purpose} is not tested: npm install took over {INSTALL_PATIENCE} s")
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").splitlines()
        reason = "; ".join([line for line in lines if line.startswith("npm error")][:2])
        pytest.skip(f"{purpose} is not tested: npm install failed: {reason}")
