"""Which version of Tilewire this is."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["VERSION"]


def _installed() -> str:
    try:
        return version("tilewire")
    except PackageNotFoundError:  # run from its source
        return "0+unknown"


VERSION: Final = _installed()
