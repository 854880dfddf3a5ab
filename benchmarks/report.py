"""What all benchmarks share: medians, a server in a process of its own, a table that says what it ran on."""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError

import onnxruntime

__all__ = [
    "KEY",
    "Report",
    "free_port",
    "median",
    "peak_memory",
    "percentile",
    "tilewire",
    "wait_until_ready",
]

KEY = "tw_benchmark"
RESULTS = Path(__file__).parent / "results"


class Report:
    """A table that is printed as it grows, and kept as text."""

    def __init__(self, name: str, *columns: str) -> None:
        self._name = name
        self._lines: list[str] = []
        self._widths = [max(len(column), 14) for column in columns]
        self.say(f"{name}, {datetime.now(UTC):%Y-%m-%d}, on {machine()}")
        self.row(*columns)

    def say(self, text: str) -> None:
        print(text, flush=True)
        self._lines.append(text)

    def row(self, *cells: object) -> None:
        """One line; numbers are given three digits."""
        texts = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells]
        self.say("  ".join(text.rjust(width) for text, width in zip(texts, self._widths, strict=True)))

    def keep(self) -> None:
        """Write it to `results/`, under the benchmark's and the processor's name."""
        RESULTS.mkdir(exist_ok=True)
        device = "-".join(processor().lower().split())
        (RESULTS / f"{self._name}-{device}.txt").write_text("\n".join(self._lines) + "\n")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine() -> str:
    return (
        f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"ONNX Runtime {onnxruntime.__version__}"
    )


def peak_memory(pid: int) -> int:
    """The most resident bytes that a process ever had (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def free_port() -> int:
    import socket  # noqa: PLC0415 - this package has a module of that name

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def tilewire(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`tilewire serve` in a process of its own, ready; and its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "server", "serve", "--port", str(port), "--data", data, *arguments]
        environment = {**os.environ, "TILEWIRE_API_KEY": KEY, "TILEWIRE_LOG_LEVEL": "error"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_until_ready(port)
            yield process, port
        finally:
            process.terminate()
            process.wait(30)


def wait_until_ready(port: int) -> None:
    """Return as soon as the server answers.

    Raises:
        TimeoutError: after a minute.
    """
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except URLError:
            time.sleep(0.01)
        else:
            return
    raise TimeoutError("the server did not get ready")
