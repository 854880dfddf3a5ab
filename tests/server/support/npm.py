"""Packages for Node, for the tests that need them; those are skipped where they cannot be had."""

import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL_PATIENCE = 60


def npm_install(directory: Path, *packages: str, patience: int = INSTALL_PATIENCE) -> None:
    """Install packages into a directory; skips the test, and says why, if that fails."""
    package = ", ".join(packages)
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(f"{package} is not there to test with: node or npm is not installed")
    (directory / "package.json").write_text('{"private": true}', encoding="utf-8")
    options = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    install = [npm, "install", *packages, *options]
    try:
        subprocess.run(install, cwd=directory, check=True, capture_output=True, timeout=patience)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package} is not there to test with: npm install took over {patience} s")
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").splitlines()
        reason = "; ".join([line for line in lines if line.startswith("npm error")][:2])
        pytest.skip(f"{package} is not there to test with: npm install failed: {reason}")
