"""What documentation says of each field of a message, read from its schema."""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from msgspec import Struct

from server.protocol.error_codes import CODES
from server.protocol.errors import ParameterError, invalid, missing, unsupported
from server.protocol.requests import TASK_CLASSES
from server.protocol.tokens import NewToken
from server.specs.schemas import Schema, components, schema_name

__all__ = ["Parameter", "ParameterCode", "parameter_codes", "parameters"]


class Parameter(Struct, frozen=True):
    """One field.

    Attributes:
        path: such as `inputs.image`.
        type: its JSON type, or its values.
        default: None if there is none, or none that a client would write.
        bounds: the range of its value.
        refused: why the server refuses it, if it does.
    """

    path: str
    type: str
    bounds: str
    required: bool
    default: Any
    description: str
    refused: str | None


def parameters(struct: type[Struct]) -> list[Parameter]:
    """The fields of a message, those of objects in it under their own paths, but for a fixed `taskType`."""
    return list(_fields(components()[schema_name(struct)], ""))


class ParameterCode(NamedTuple):
    """A code about one parameter, and what the parameter is."""

    path: str
    description: str


def parameter_codes() -> dict[str, dict[str, ParameterCode]]:
    """By family (`invalid`, …) the codes of all errors about a parameter."""
    codes: dict[str, dict[str, ParameterCode]] = {"invalid": {}, "missing": {}, "unsupported": {}}

    def add(error: Callable[[str, str], ParameterError], family: str, path: str, description: str) -> None:
        code = error(path, "").code
        if code not in CODES:
            codes[family].setdefault(code, ParameterCode(path, description))

    described: tuple[type[Struct], ...] = (*TASK_CLASSES, NewToken)
    for parameter in (parameter for struct in described for parameter in parameters(struct)):
        path, description = parameter.path, parameter.description
        if parameter.type != "any":
            add(invalid, "invalid", path, description)
        if parameter.required:
            add(missing, "missing", path, description)
        if parameter.refused or path.startswith("settings."):  # not every model takes them
            add(unsupported, "unsupported", path, description)
    for path, description in _INVALID:
        add(invalid, "invalid", path, description)
    for path, description in _MISSING:
        add(missing, "missing", path, description)
    for path, description in _UNSUPPORTED:
        add(unsupported, "unsupported", path, description)
    return codes


_INVALID: Final = (
    ("task", "Each element of a frame must be an object, in UTF-8."),
    ("taskType", "A string; and `authentication` comes first."),
    ("inputs", "An object with an `image`."),
    ("settings", "An object of the settings that there are."),
)
_MISSING: Final = (
    ("taskType", "Each task has one."),
    ("inputImage", "An upscale needs `inputs.image` or `inputImage`."),
    *((name, "Usage is asked for from one day to another.") for name in ("startDate", "endDate")),
)
_UNSUPPORTED: Final = (
    ("targetMegapixels", "The model has no `fractionalFactors`: give an `upscaleFactor`."),
    ("width", "The model has no `fractionalFactors`: give an `upscaleFactor`."),
    ("height", "The model has no `fractionalFactors`: give an `upscaleFactor`."),
    ("faceRestoration.weight", "Only CodeFormer takes it."),
    ("seamless", "Latent upscalers cannot let edges meet."),
    *(
        (path, "The server has no checker: `tilewire models pull open-nsfw` fetches one.")
        for path in ("checkNSFW", "safety.checkContent", "safety.mode", "safety.action")
    ),
    ("includeTiles", "Parts of a result are sent over a WebSocket only."),
    ("outputFormat", "`RAW` comes in MessagePack only."),
    ("store", "Files are always stored."),
    ("webhookURL", "A webhook gets JSON, which has no `RAW`."),
    ("uploadEndpoint", "It gets a file, which `RAW` is not."),
    ("operation", "The message names those that are offered."),
    *(
        (name, "`getDetails` takes none of the parameters of usage.")
        for name in ("startDate", "endDate", "models", "apiKeys", "groupBy", "timezone")
    ),
    ("blend.model", "The token that came as the key is for other models: the message names them."),
    ("model", "The token that came as the key is for other models: the message names them."),
)


def _fields(schema: Schema, prefix: str) -> Iterator[Parameter]:
    for name, field in schema["properties"].items():
        target = _resolve(field)
        if name == "taskType" and "enum" in field:  # its name says it
            continue
        options = [_resolve(option) for option in field.get("anyOf", [target])]
        real = [option for option in options if option.get("type") != "null"]
        if len(real) == 1 and "properties" in real[0] and real[0] is not field:
            yield from _fields(real[0], f"{prefix}{name}.")
            continue
        default = field.get("default")
        yield Parameter(
            path=prefix + name,
            type=_types(real),
            bounds=", ".join(filter(None, map(_bounds, real))),
            required=name in schema.get("required", ()),
            default=None if default == "" else default,
            description=field.get("description", ""),
            refused=field.get("x-refused"),
        )


def _resolve(schema: Schema) -> Schema:
    reference = schema.get("$ref")
    return components()[reference.rpartition("/")[2]] if reference else schema


def _types(options: list[Schema]) -> str:
    (first, *others) = options
    if not others and "enum" in first.get("items", {}):
        return f"list of {', '.join(f'`{value}`' for value in first['items']['enum'])}"
    return " or ".join(dict.fromkeys(map(_type, options)))


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        items = _resolve(schema["items"])
        return "list of them" if "enum" in items else f"list of {items.get('title', items.get('type'))}"
    if "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
        return f"object of {_resolve(schema['additionalProperties']).get('title', 'any')}"
    if schema.get("format") == "uuid":
        return "UUID"
    return str(schema.get("title") if "properties" in schema else schema.get("type", "any"))


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    parts = []
    if low is not None:
        parts.append(f"{low:,} or more")
    if above is not None:
        parts.append(f"above {above:,}")
    if high is not None:
        parts.append(f"up to {high:,.0f}")
    return ", ".join(parts)
