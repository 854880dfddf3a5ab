"""What security.md says that one account can take is what the settings and the code say."""

import re
from pathlib import Path

import server.docs
from server.delivery import webhooks
from server.limits import disk, memory, shares
from server.limits.edge import FIRST_FRAME_BYTES
from server.settings import Settings

PAGE = (Path(server.docs.__file__).parent / "security.md").read_text("utf-8")
DEFAULT = Settings()


def figures() -> dict[str, str]:
    """The table, by what is taken."""
    section = PAGE.partition("## What one account can take\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", section, re.MULTILINE)
    return {f"{name} | {settings}".strip(" |"): figure for name, figure, settings in rows}


def test_the_figures_of_what_one_account_can_take_are_the_defaults() -> None:
    part = f"1/{memory._PART * memory._SHARE} of the memory"
    share = round(shares._CONNECTIONS * shares._SHARE)
    expected = {
        "memory: incoming messages | `max_incoming_bytes`": part,
        "memory: replies not yet read or confirmed | `max_outgoing_bytes`": part,
        "memory: pictures being processed, inputs and results | `active_megapixels_per_account`": (
            f"{DEFAULT.active_megapixels_per_account:g} megapixels"
        ),
        "disk: images, inputs and results | `max_stored_bytes`": (
            f"1/{disk._PART} of the disk; {disk._IN_A_BUCKET // 2**40} TiB in a bucket"
        ),
        "disk: images that it uploads or has the server fetch | `upload_bytes_per_hour`": (
            f"{DEFAULT.upload_bytes_per_hour // 2**30} GiB an hour"
        ),
        "disk: how long an image stays | `max_image_ttl`": f"{DEFAULT.max_image_ttl // 86400} days",
        "connections to the server | `max_connections_per_account`": (
            f"{DEFAULT.max_connections_per_account:,}"
        ),
        "connections from the server to URLs": (
            f"{share} of {shares._CONNECTIONS} for inputs, as many for uploads and webhooks"
        ),
        "webhooks that are sent at once": f"{webhooks._AT_ONCE_PER_ACCOUNT} of {webhooks._AT_ONCE}",
        "unfinished tasks | `max_tasks_in_flight`": f"{DEFAULT.max_tasks_in_flight:,}",
        "tasks | `requests_per_second`, `request_burst`": (
            f"{DEFAULT.requests_per_second:g} a second, {DEFAULT.request_burst:,} at once"
        ),
        "time of a task | `task_timeout`": f"{DEFAULT.task_timeout:,.0f} seconds",
        "processor time of decoding an image | `decode_timeout`": f"{DEFAULT.decode_timeout:g} seconds",
        "time of a request to a URL | `fetch_timeout`": f"{DEFAULT.fetch_timeout:g} seconds",
        "time that an unread reply holds memory | `send_timeout`": f"{DEFAULT.send_timeout:g} seconds",
    }
    found = figures()
    del found["of | setting"]
    assert found == expected


def test_so_are_those_of_an_address_that_has_yet_to_authenticate() -> None:
    said = " ".join(PAGE.split())
    assert (
        f"{DEFAULT.max_unauthenticated} connections of {DEFAULT.auth_timeout:g} seconds, "
        f"and {FIRST_FRAME_BYTES:,} bytes of each" in said
    )
