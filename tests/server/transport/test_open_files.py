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
        (100, 100, 1000, 1, 100),
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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(room), str(after)]
