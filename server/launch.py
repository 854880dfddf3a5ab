"""How the command begins: a server starts anew with its memory in huge pages, where it has to ask for them.

A small task runs through many small objects, and a processor knows the addresses of few pages at once. With
huge ones a task of 16² pixels takes 0.88 of the time (measured on a virtual machine, where each address is
looked up twice), for 4 to 16 MB more memory.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["main"]

_PAGES: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""www.kernel.org/doc/html/latest/admin-guide/mm/transhuge.html. Where they are not "always" there, and may be
asked for, it holds "[madvise]"."""
_WANTED: Final = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # sourceware.org/glibc/manual, "Memory Allocation Tunables"
    "PYTHONMALLOC": "malloc",  # Python's own allocator takes pieces of a megabyte, which are too small
}


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["serve"] and _may_ask_for_huge_pages():
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | _WANTED)  # noqa: S606
    from server.cli import main as run_command_line  # noqa: PLC0415 - takes longer than to start anew

    run_command_line()


def _may_ask_for_huge_pages() -> bool:
    """Whether the system has them for who asks, and nobody has decided otherwise."""
    if sys.platform != "linux" or not _WANTED.keys().isdisjoint(os.environ):
        return False
    try:
        return "[madvise]" in _PAGES.read_text()
    except OSError:
        return False
