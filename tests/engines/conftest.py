"""Tests that need a GPU are skipped where there is none, and say why."""

import pytest

from engines import ModelError, find_devices


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        try:
            find_devices("cuda")
        except ModelError as error:
            pytest.skip(str(error))
