"""What an image parameter may hold."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from server.protocol.codec import JSON, MESSAGEPACK
from server.protocol.errors import ParameterError
from server.protocol.sources import (
    MAX_URL,
    ImageSource,
    InlineImage,
    RemoteImage,
    StoredImage,
    parse_source,
)

UUID = "550e8400-e29b-41d4-a716-446655440000"


def read(value: Any) -> ImageSource:
    return parse_source(Raw(json.dumps(value).encode()), "inputs.image", JSON)


def refused(value: Any) -> ParameterError:
    with pytest.raises(ParameterError) as caught:
        read(value)
    return caught.value


def test_a_uuid_is_a_stored_image_however_it_is_written() -> None:
    assert read(UUID) == read(UUID.upper()) == StoredImage(UUID)


@pytest.mark.parametrize("url", ["https://example.org/a.png", "HTTP://example.org", "ftp://x", "file:///a"])
def test_whatever_has_a_scheme_is_remote(url: str) -> None:
    assert read(url) == RemoteImage(url)  # which schemes are fetched is for the fetching to decide


@given(st.binary(min_size=1, max_size=300), st.sampled_from(("", "data:image/png;base64,", "data:;base64,")))
def test_base64_is_read_padded_unpadded_wrapped_and_url_safe(data: bytes, prefix: str) -> None:
    plain = base64.b64encode(data).decode()
    wrapped = "\r\n".join(plain[start : start + 60] for start in range(0, len(plain), 60))
    safe = base64.urlsafe_b64encode(data).decode()
    for text in (plain, plain.rstrip("="), wrapped, safe, safe.rstrip("=")):
        if len(text) != 36:  # as long as a UUID
            assert read(prefix + text) == InlineImage(data)


@given(st.binary(max_size=300))
def test_messagepack_takes_bytes_as_they_are(data: bytes) -> None:
    raw = Raw(MESSAGEPACK.encode(data))
    assert parse_source(raw, "image", MESSAGEPACK) == InlineImage(data)


@pytest.mark.parametrize(
    "value",
    [
        "", "=", "    ", "data:", "data:image/png;base64", "data:image/png;base64,!", "****", "a", "é" * 100,
        "A" * 101, "A" * 200 + "!", "javascript:alert(1)", "../etc/passwd", "\x00",
        UUID.replace("-", "_") + "!", None, 12, 1.5, True, [], {}, [UUID], {"uuid": UUID},
    ],
    ids=lambda value: repr(value)[:24],
)  # fmt: skip
def test_anything_else_is_an_error_that_names_the_parameter(value: Any) -> None:
    error = refused(value)
    code = "unsupportedInputsImage" if isinstance(value, dict) else "invalidInputsImage"  # pixels, in JSON
    assert (error.code, error.parameter) == (code, "inputs.image")


@pytest.mark.parametrize(
    "raw", [b'"\xff"', b'"' + b"\xff" * 100 + b'"', b'"\\ud800"', b"[" * 5000 + b"]" * 5000]
)
def test_what_is_not_json_inside_is_an_error_too(raw: bytes) -> None:
    with pytest.raises(ParameterError):
        parse_source(Raw(raw), "image", JSON)


def test_a_url_has_a_longest_length() -> None:
    start = "https://example.org/"
    assert read(start + "a" * (MAX_URL - len(start)))
    assert "longer than" in refused(start + "a" * MAX_URL).message


@given(st.text() | st.text("AQgw=-_+/ \n:,;data", max_size=90))
def test_any_text_is_a_source_or_an_error(text: str) -> None:
    for codec in (JSON, MESSAGEPACK):
        try:
            source = parse_source(Raw(codec.encode(text)), "image", codec)
        except ParameterError:
            continue
        assert isinstance(source, StoredImage | RemoteImage | InlineImage)
