"""The command `tilewire`, which is `python -m tilewire` too.

The command line is in the package `server`. An application that has a package of that name on its path must
not get in the way: the packages that were installed beside this one come first.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

__all__ = ["main"]

_OWN: Final = frozenset({"server", "engines", "onnx_models"})
_HOME: Final = str(Path(__file__).resolve().parent.parent)


class _OwnPackages(MetaPathFinder):
    """Finds our packages where this one is, and nowhere else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give where one of ours is; `path` is that of a package that it would be in, and none is."""
        return PathFinder.find_spec(fullname, [_HOME], target) if path is None and fullname in _OWN else None


# Not in `main`: processes that `multiprocessing` starts import this module again, but do not call that.
sys.meta_path.insert(0, _OwnPackages())


def main() -> None:
    """Run the command line."""
    from server.launch import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
