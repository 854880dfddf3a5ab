"""The limit of open files, in a process of its own: it is never lowered back."""

import subprocess
import sys

import pytest

pytest.importorskip("resource")


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "room", "after"),
    [
        (300, 2000, 1000, 1000, 1256),
        (300, 1000, 5000, 744, 1000),
        (1000, 1000, 100, 100, 1000),
        (200, 200, 1000, 1, 200),
    ],
)
def test_room_is_made_as_far_as_the_system_allows(
    soft: int, hard: int, wanted: int, room: int, after: int
) -> None:
    script = (
        "import resource; from server.transport.open_files import room_for; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
        f"print(room_for({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split() == [str(room), str(after)]
    assert ("there is room for" in done.stderr) == (room < wanted)


def test_too_few_are_refused_with_what_to_do() -> None:
    script = (
        "import resource; from server.transport.open_files import room_for; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); room_for(1000)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert done.stderr.endswith(
        "OSError: only 100 files may be open, 128 are needed: see ulimit -n, or LimitNOFILE\n"
    )
