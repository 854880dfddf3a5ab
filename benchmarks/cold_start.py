"""Seconds from starting `tilewire serve` until it is ready, with the models built and the default one loaded.

python -m benchmarks.cold_start
"""

import time

from benchmarks.report import Report, median, tilewire

ROUNDS = 7


def main() -> None:
    """Measure, print, keep."""
    report = Report("cold_start", "round", "seconds")
    times = []
    for number in range(ROUNDS + 1):
        begun = time.perf_counter()
        with tilewire():
            took = time.perf_counter() - begun
        if number:  # the first one may have built the model
            times.append(took)
            report.row(number, took)
    report.row("median", median(times))
    report.keep()


if __name__ == "__main__":
    main()
