"""The numbers in the documentation are those of the settings, and the close codes those that are used."""

import re
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from server.settings import Settings
from tests.server.support.process import REPOSITORY

DOCS = REPOSITORY / "server" / "docs"
DEFAULTS = msgspec.structs.asdict(Settings())
UNITS = {
    "": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "million": 1,  # the settings have megapixels, too
    "s": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "hour": 3600,
    "day": 86400,
}
QUANTITY = re.compile(
    r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?: (KiB|MiB|GiB|million|s|seconds?|min|minutes?|hours?|days?)\b)?"
)


def quantities(text: str) -> set[float]:
    """The numbers in a text, in the units of the settings."""
    return {
        float(number.replace(",", "")) * UNITS[unit if unit == "s" else unit.removesuffix("s")]
        for number, unit in QUANTITY.findall(text)
    }


def documented() -> list[tuple[str, str]]:
    """Each setting in a table beside what is said of its default."""
    found = []
    for what, limit, names in re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| ([^|]*) \|$", (DOCS / "limits.md").read_text("utf-8"), re.MULTILINE
    ):
        found += [(name, limit) for name in re.findall(r"`(\w+)`", names) if what != "what"]
    security = (DOCS / "security.md").read_text("utf-8")
    for names, defaults in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", security, re.MULTILINE):
        found += [
            (name, defaults)
            for name in re.findall(r"`(\w+)`", names)
            if name in DEFAULTS and name != "models"
        ]
    return found


@pytest.mark.parametrize(("name", "said"), documented())
def test_the_tables_have_the_defaults(name: str, said: str) -> None:
    default: Any = DEFAULTS[name]
    if default is None:  # found out at the start
        assert re.search("quarter|disk|memory|none|no limit|unlimited|off", said) or not quantities(said)
    else:
        assert float(default) in quantities(said)


def test_the_tables_were_found() -> None:
    assert len(documented()) > 25


@pytest.mark.parametrize(
    ("page", "sentence", "names"),
    [
        ("sessions", r"not authenticated within [^;]*;", ("auth_timeout",)),
        ("sessions", r"silent for .*? while", ("idle_timeout",)),
        ("sessions", r"a message was larger than [^|]*\|", ("max_frame_bytes",)),
        ("sessions", r"for \d+ seconds, or leaves more than .*?\.", ("send_timeout", "max_unsent_bytes")),
        ("sessions", r"wait for one day", ()),
        ("operations", r"`store_timeout` \(.*?\)", ("store_timeout",)),
        ("several-servers", r"kept for `image_ttl` \(.*?\)", ("image_ttl",)),
        ("several-servers", r"client_max_body_size .*? #", ()),
    ],
)
def test_sentences_have_the_defaults(page: str, sentence: str, names: tuple[str, ...]) -> None:
    found = re.search(sentence, (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    assert {float(DEFAULTS[name]) for name in names} <= quantities(found[0])


def test_the_proxy_is_more_patient_than_the_server() -> None:
    nginx = (DOCS / "several-servers.md").read_text("utf-8")
    (read, send, body) = (
        int(re.search(pattern, nginx)[1])  # type: ignore[index]
        for pattern in (
            r"proxy_read_timeout (\d+)s",
            r"proxy_send_timeout (\d+)s",
            r"client_max_body_size (\d+)m",
        )
    )
    assert read > DEFAULTS["idle_timeout"]
    assert send > DEFAULTS["send_timeout"]
    assert body * 2**20 == DEFAULTS["max_frame_bytes"]
    stop = int(re.search(r"TimeoutStopSec=(\d+)", (DOCS / "tilewire.service").read_text("utf-8"))[1])  # type: ignore[index]
    assert timedelta(seconds=stop) > timedelta(seconds=DEFAULTS["drain_timeout"])


def test_every_close_code_that_the_server_uses_is_explained() -> None:
    files = [REPOSITORY / "server" / "connection.py", *(REPOSITORY / "server" / "delivery").glob("*.py")]
    files += (REPOSITORY / "server" / "transport").glob("*.py")
    source = "\n".join(file.read_text("utf-8") for file in files)
    used = set(re.findall(r"\bclose\((?:code=)?(\d{4})\b|: Final = (1\d{3}|4\d{3})\b", source))
    codes = {code for pair in used for code in pair if code and code not in ("1000", "1024")}
    explained = set(re.findall(r"^\| (\d{4}) \|", (DOCS / "sessions.md").read_text("utf-8"), re.MULTILINE))
    assert {"1001", "1008", "1013", "4000", "4001"} <= codes
    assert codes <= explained
