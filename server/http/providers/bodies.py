"""Bodies of requests: JSON and forms."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from server.http.tasks import read_body, receive_body
from server.protocol.errors import FrameError
from server.protocol.raw_task import as_parameter_error
from server.services import Services
from server.settings import Settings
from server.state.accounts import AccountId
from server.transport.http import OWNER

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["decode_json", "read_form", "read_json"]

T = TypeVar("T")

_PARTS = 256


async def read_json(request: Request, kind: type[T]) -> T:
    """The body as a Struct. Numbers and truth values may be strings, as these services take them.

    Raises:
        FrameError: if it is not JSON.
        ParameterError: if a field is missing or wrong.
    """
    settings, account = _bounds(request)
    return decode_json(
        await read_body(request, settings, authenticated=True, account=account), kind, strict=False
    )


def decode_json(body: bytes, kind: type[T], *, strict: bool) -> T:
    """JSON as a Struct; see `read_json`.

    Args:
        body: the JSON.
        kind: the Struct.
        strict: whether a string in place of a number or a truth value is wrong.
    """
    try:
        return msgspec.json.decode(body, type=kind, strict=strict)
    except msgspec.ValidationError as error:
        raise as_parameter_error(str(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FrameError(f"the body must be JSON: {error}") from error


async def read_form(request: Request) -> Mapping[str, bytes]:
    """The parts of a form (multipart/form-data, RFC 7578) by name; of a repeated one the last.

    They are taken apart as they come: the body as a whole is never in memory beside them. Files and fields
    are the same here: clients send images without a file name, too.

    Raises:
        FrameError: if it is no such form.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise FrameError("the body must be multipart/form-data")
    form = _Form()
    settings, account = _bounds(request)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        await receive_body(request, settings, parser.write, authenticated=True, account=account)
        parser.finalize()
    except FormParserError as error:
        raise FrameError(f"the form cannot be read: {error}") from error
    return form.parts


class _Form:
    """Collects the parts of a form as they are parsed."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self._name = b""
        self._field = b""
        self._value = b""
        self._data = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= _PARTS:
            raise FrameError(f"the form has more than {_PARTS} parts")
        self._name, self._data = b"", bytearray()
        self._field = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name", b"")
        self._field = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _end(self) -> None:
        try:
            self.parts[self._name.decode()] = bytes(self._data)
        except UnicodeDecodeError as error:
            raise FrameError("names of parts must be UTF-8") from error


def _bounds(request: Request) -> tuple[Settings, AccountId]:
    """The limits of a body, and whose it is."""
    services: Services = request.app.state.services
    return services.settings, getattr(request.state, OWNER)
