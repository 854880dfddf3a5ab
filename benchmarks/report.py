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

from engines.devices.runtimes import onnxruntime

__all__ = [
    "KEY",
    "Report",
    "cpu_seconds",
    "free_port",
    "gpu_name",
    "median",
    "peak_memory",
    "percentile",
    "ratio",
    "resident_memory",
    "tilewire",
    "wait_until_ready",
]

KEY = "tw_key-of-the-benchmarks"
RESULTS = Path(__file__).parent / "results"


class Report:
    """A table that is printed as it grows, and kept as text.

    Args:
        name: of the benchmark; the beginning of the file's name.
        columns: the headings; as wide as their column is to be, if that is more than 14 characters.
        device: what it runs on, for the file's name; default: the processor.
    """

    def __init__(self, name: str, *columns: str, device: str | None = None) -> None:
        self._name = name
        self._device = device or processor()
        self._lines: list[str] = []
        self._widths = [max(len(column), 14) for column in columns]
        self.say(f"{name}, {datetime.now(UTC):%Y-%m-%d}, on {device + ', ' if device else ''}{machine()}")
        self.row(*columns)

    def say(self, text: str) -> None:
        print(text, flush=True)
        self._lines.append(text)

    def row(self, *cells: object) -> None:
        """One line; numbers are given three digits."""
        texts = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells]
        self.say("  ".join(text.rjust(width) for text, width in zip(texts, self._widths, strict=True)))

    def keep(self) -> None:
        """Write it to `results/`, under the benchmark's and the device's name."""
        RESULTS.mkdir(exist_ok=True)
        device = "-".join(self._device.lower().split())
        (RESULTS / f"{self._name}-{device}.txt").write_text("\n".join(self._lines) + "\n", encoding="utf-8")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def ratio(times: dict[str, list[float]], ours: str, theirs: str) -> float | str:
    """Their speed by ours: the median of what it was in each round."""
    if ours not in times:
        return "-"
    return median([mine / other for mine, other in zip(times[ours], times[theirs], strict=True)])


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine() -> str:
    """What it runs on; other work on the same cores, if there is any, shows as load."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{processor()}, {os.cpu_count()} cores{load}, Python {platform.python_version()}, "
        f"ONNX Runtime {onnxruntime.__version__}"
    )


def gpu_name() -> str | None:
    """The name of the first NVIDIA GPU, as its driver tells it; None without one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.check_output(command, stderr=subprocess.DEVNULL, encoding="utf-8").split("\n")
    except (OSError, subprocess.CalledProcessError):
        return None
    return names[0].strip() or None


def peak_memory(pid: int) -> int:
    """The most resident bytes that a process ever had (Linux)."""
    return _memory(pid, "VmHWM")


def resident_memory(pid: int) -> int:
    """The resident bytes of a process at this moment (Linux)."""
    return _memory(pid, "VmRSS")


def _memory(pid: int, kind: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{kind}:"))
    return int(line.split()[1]) * 1024


def cpu_seconds(pid: int) -> float:
    """The processor time that a process and its children have taken."""
    import psutil  # noqa: PLC0415 - most benchmarks need no extra

    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def free_port() -> int:
    import socket  # noqa: PLC0415 - this package has a module of that name

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def tilewire(*arguments: str, data: str | None = None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`tilewire serve` in a process of its own, ready; and its port. Without `data`, its data go with it."""
    port = free_port()
    with tempfile.TemporaryDirectory() as passing:
        command = [sys.executable, "-m", "server", "serve", "--port", str(port)]
        command += ["--data", data or passing, *arguments]
        environment = {**os.environ, "TILEWIRE_API_KEY": KEY, "TILEWIRE_LOG_LEVEL": "error"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_until_ready(process, port)
            yield process, port
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:  # a long run cannot be interrupted
                process.kill()
                process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str = "readyz") -> None:
    """Return as soon as the server answers.

    Args:
        process: the server.
        port: of it.
        path: what is asked for.

    Raises:
        TimeoutError: if it has ended, or after five minutes; a GPU is measured when it first has a network.
    """
    give_up = time.monotonic() + 300
    while time.monotonic() < give_up and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5).close()
        except URLError:
            time.sleep(0.01)
        else:
            return
    raise TimeoutError("the server did not get ready")
