"""What a server's `/metrics` say."""

import asyncio
from collections.abc import Callable

import httpcore
from prometheus_client.parser import text_string_to_metric_families

from tests.server.support.harness import PATIENCE, Address

Metrics = dict[str, float]
"""Values by name and labels, as in `tilewire_tasks_total{model=…,outcome=…}`."""


async def scrape(server: Address, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """The status and the body."""
    response = await asyncio.to_thread(httpcore.request, "GET", f"{server.url}/metrics", headers=headers)
    return response.status, response.content.decode()


async def metrics_of(server: Address) -> Metrics:
    status, text = await scrape(server)
    assert status == 200
    return {
        sample.name + labels(**sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**values: str) -> str:
    """As in the names of `Metrics`."""
    return "{" + ",".join(f"{name}={value}" for name, value in sorted(values.items())) + "}" if values else ""


async def until(server: Address, is_so: Callable[[Metrics], bool]) -> Metrics:
    """Scrape until it is so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            metrics = await metrics_of(server)
            if is_so(metrics):
                return metrics
            await asyncio.sleep(0.01)
