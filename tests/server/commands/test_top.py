"""`tilewire top`: what it makes of two scrapes, and what it says when there is nothing to see."""

import base64
import math
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from server.commands.top_view import Scrape, parse, quantile, view
from server.serving import EmbeddedServer
from tests.server.conftest import StartServer, Tilewire
from tests.server.support.harness import FAST_MODEL, PATIENCE, connected, make_image, upscale
from tests.server.support.process import environment
from tests.server.support.scrape import until
from tests.server.support.web import Web


def shown(before: Scrape, after: Scrape) -> str:
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        console.print(view(before, after, "http://host"))
    return capture.get()


def scraped(time: float, *lines: str) -> Scrape:
    return parse("\n".join(["tilewire_sockets 0", *lines, ""]), time)


def test_rates_are_of_the_time_between_two_scrapes() -> None:
    before = scraped(
        10,
        'tilewire_device_up{device="GPU"} 1',
        'tilewire_device_busy_seconds_total{device="GPU"} 3',
        'tilewire_output_pixels_total{model="a"} 1000000',
    )
    after = scraped(
        14,
        'tilewire_device_up{device="GPU"} 1',
        'tilewire_device_busy_seconds_total{device="GPU"} 5',
        'tilewire_output_pixels_total{model="a"} 2000000',
        'tilewire_output_pixels_total{model="b"} 5000000',
        'tilewire_tasks_total{model="a",outcome="failed"} 8',
        'tilewire_queue_tasks{model="a"} 3',
        'tilewire_queue_tiles{model="a"} 40',
    )
    lines = shown(before, after).splitlines()
    assert "2.0 tasks/s   1.50 MP/s" in lines[0]
    assert ["GPU", "50%"] in [line.split()[:2] for line in lines]
    assert ["a", "3", "40"] in [line.split() for line in lines]


def test_a_server_that_was_started_anew_has_no_negative_rates() -> None:
    before = scraped(0, 'tilewire_tasks_total{model="a",outcome="failed"} 80')
    after = scraped(2, 'tilewire_tasks_total{model="a",outcome="failed"} 4')
    assert "2.0 tasks/s" in shown(before, after)


def test_small_amounts_have_no_exponent() -> None:
    scrape = scraped(0, "tilewire_charged_usd_total 2.2e-05", "tilewire_reserved_usd 1200")
    assert "charged 0.000022 USD   reserved 1200 USD" in shown(scrape, scrape)


def test_a_device_that_is_lost_is_not_called_idle() -> None:
    lost = scraped(0, 'tilewire_device_up{device="GPU"} 0')
    assert ["GPU", "lost"] in [line.split()[:2] for line in shown(lost, lost).splitlines()]


BOUNDS = (0.1, 1.0, 10.0, math.inf)


def histogram(values: list[float]) -> dict[float, float]:
    return {bound: float(sum(value <= bound for value in values)) for bound in BOUNDS}


@given(st.lists(st.floats(0, 9), min_size=1), st.lists(st.floats(0, 9)), st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(
    values: list[float], earlier: list[float], share: float
) -> None:
    found = quantile(share, histogram(earlier), histogram(earlier + values))
    true = sorted(values)[math.ceil(share * len(values)) - 1]
    assert found is not None
    lower, upper = next(
        (low, high) for low, high in zip((0.0, *BOUNDS), BOUNDS, strict=False) if true <= high
    )
    assert lower <= found <= upper


def test_there_is_no_quantile_of_nothing() -> None:
    assert quantile(0.5, histogram([1]), histogram([1])) is None
    assert quantile(0.5, {}, {}) is None


def test_what_is_beyond_the_last_bound_is_told_as_that() -> None:
    assert quantile(0.5, {}, histogram([50])) == 10


async def test_one_view_of_a_running_server(start_server: StartServer, tilewire: Tilewire) -> None:
    server = start_server()
    async with connected(server) as peer:
        await peer.ask(upscale(base64.b64encode(make_image()).decode()))
        await until(server, lambda found: found["tilewire_stage_seconds_count{stage=deliver}"] == 1)
    result = tilewire(
        "top", "--once", "--interval", "0.1", "--url", f"{server.url.replace('http', 'ws')}/v1/"
    )
    assert result.exit_code == 0
    assert "1 succeeded" in result.stdout
    assert server.services.upscaler.devices[0].name in result.stdout
    assert FAST_MODEL in result.stdout
    first_words = {line.split()[0] for line in result.stdout.splitlines() if line.strip()}
    assert {"whole", "inference", "deliver"} <= first_words


def test_the_live_view_goes_on_until_ctrl_c_and_leaves_the_terminal_as_it_was(
    start_server: StartServer, tmp_path: Path, model_directory: Path
) -> None:
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "server", "top", "--url", start_server().url, "--interval", "0.1"]
    process = subprocess.Popen(
        command,
        env=environment(tmp_path, model_directory, TERM="xterm"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown, asked = b"", False
    with os.fdopen(ours, "rb", buffering=0) as screen, suppress(OSError):  # EIO: nobody has the terminal
        while part := screen.read(65536):
            shown += part
            if shown.count(b"tasks/s") >= 3 and not asked:
                process.send_signal(signal.SIGINT)
                asked = True
    assert process.wait(PATIENCE) == 0
    assert shown.count(b"tasks/s") >= 3
    entered, left = b"\x1b[?1049h", b"\x1b[?1049l"
    assert shown.index(entered) < shown.index(b"tasks/s") < shown.index(left)
    assert b"Traceback" not in shown


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (lambda _: "http://127.0.0.1:1", "cannot be reached"),
        (lambda _: "nonsense", "is not a server's address"),
        (lambda web: web.url, "answers 404"),
    ],
)
def test_it_says_in_one_line_why_there_is_nothing_to_see(
    tilewire: Tilewire, web: Web, url: Callable[[Web], str], reason: str
) -> None:
    result = tilewire("top", "--once", "--url", url(web))
    assert result.exit_code == 1
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_another_programs_metrics_are_refused(tilewire: Tilewire, web: Web) -> None:
    web.files["/metrics"] = b"up 1\n"
    result = tilewire("top", "--once", "--url", web.url)
    assert (result.exit_code, "not the metrics of Tilewire" in result.stderr) == (1, True)


def test_a_server_that_refuses_says_how_to_change_that(start_server: StartServer, tilewire: Tilewire) -> None:
    server: EmbeddedServer = start_server(metrics="off")
    result = tilewire("top", "--once", "--url", server.url)
    assert (result.exit_code, "metrics are off" in result.stderr) == (1, True)
