"""The tables about creative upscalers, made of those that the engine goes by."""

from collections.abc import Mapping
from typing import Final

from engines import KNOBS, PRESETS, STYLES
from server.docs.tables import table
from server.protocol.names import wire_name

__all__ = ["control_table", "preset_table", "style_table"]

_SETS: Final[Mapping[str, str]] = {
    "strength": "<code>strength</code>",
    "guidance": "<code>CFGScale</code>",
    "control": "<code>controlNetWeight</code>",
    "kept": "kept strength",
    "control_end": "steps with the ControlNet",
    "extra_noise": "extra noise",
    "understated": "understated noise",
    "window": "side of windows",
    "refinements": "passes before",
    "style_weight": "weight of the style",
}
"""What the engine's fields are called for people."""


def control_table(_: str) -> str:
    """What each setting changes, by which formula."""
    rows = (
        (
            f"<code>{wire_name(knob.name)}</code>",
            f"{knob.low} to {knob.high}",
            _SETS[knob.changes],
            f"<code>{knob.written}</code>",
            knob.meaning,
        )
        for knob in KNOBS
    )
    return table(("Setting", "Value", "Sets", "To", "Which is"), rows)


def preset_table(_: str) -> str:
    """What each preset has the settings at."""
    names = dict.fromkeys(knob.name for knob in KNOBS)
    rows = (
        (f"<code>{wire_name(name)}</code>", *(f"{values[name]:g}" for values in PRESETS.values()))
        for name in names
    )
    return table(("Setting", *PRESETS), rows)


def style_table(_: str) -> str:
    """The words of each style."""
    rows = ((f"<code>{style}</code>", words.wanted, words.unwanted) for style, words in STYLES.items())
    return table(("Style", "Adds to the prompt", "Adds to the negative one"), rows)
