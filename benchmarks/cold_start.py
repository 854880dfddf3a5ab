"""Seconds until `tilewire serve` is ready, where it ran before, with the default model loaded.

python -m benchmarks.cold_start
"""

import tempfile
import time

from benchmarks.report import Report, median, tilewire

ROUNDS = 7


def main() -> None:
    """Measure, print, keep."""
    report = Report("cold_start", "round", "seconds")
    times = []
    with tempfile.TemporaryDirectory() as data:
        for number in range(ROUNDS + 1):
            begun = time.perf_counter()
            with tilewire(data=data):
                took = time.perf_counter() - begun
            if number:  # the first one makes the tables, and may build the model
                times.append(took)
                report.row(number, took)
    report.row("median", median(times))
    report.keep()


if __name__ == "__main__":
    main()
