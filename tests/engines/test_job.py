"""What is reported of a job while its items run."""

import asyncio

import pytest

from engines import job as jobs
from engines.job import Job


async def test_a_long_run_makes_progress_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_TICK", 0.001)
    reported: asyncio.Queue[float] = asyncio.Queue()
    job = Job(count=2, loop=asyncio.get_running_loop(), on_start=None, on_progress=reported.put_nowait)
    for _ in range(2):
        job.expect(0.02)
    shares = [await reported.get()]
    while shares[-1] < 0.95:
        shares.append(await reported.get())
    assert shares == sorted(shares)
    assert shares[0] > 0
    assert shares[-1] == pytest.approx(0.95), "it is not done before it is"
    job.advance()
    while (share := await reported.get()) != 0.5 + 0.5 * 0.95:
        assert 0.5 <= share < 1
    job.advance()
    while await reported.get() != 1:
        pass
    assert job.done.done()


async def test_a_job_that_ended_reports_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_TICK", 0.0)
    reported: list[float] = []
    job = Job(count=1, loop=asyncio.get_running_loop(), on_start=None, on_progress=reported.append)
    job.expect(10)
    job.done.cancel()
    job._tick()
    assert job.ticker is None
    assert reported == []
