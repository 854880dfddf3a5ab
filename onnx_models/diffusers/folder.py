"""What a diffusers folder says, read without PyTorch: each value is checked, each fault has one message.

A key that is absent means what it means to diffusers: the default of the class.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from onnx_models.errors import UnsuitableModelError

__all__ = ["Config", "Files", "check_files", "read_json"]

_STEMS = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "image_encoder": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "controlnet": "diffusion_pytorch_model",
}
"""The components that have weights, and what their files are called."""

_OF_CLIP = {"hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers"}
_NEEDED = {
    "text_encoder": _OF_CLIP | {"vocab_size", "max_position_embeddings"},
    "text_encoder_2": _OF_CLIP | {"vocab_size", "max_position_embeddings", "projection_dim"},
    "image_encoder": _OF_CLIP | {"image_size", "patch_size", "projection_dim"},
    "unet": {"in_channels", "out_channels", "block_out_channels", "cross_attention_dim"},
    "vae": {"latent_channels", "block_out_channels", "scaling_factor"},
    "controlnet": {
        "in_channels",
        "block_out_channels",
        "cross_attention_dim",
        "conditioning_embedding_out_channels",
    },
}
"""Numbers, or lists of numbers, that must be finite and above 0 where they are given."""


class Config:
    """A component's configuration.

    Args:
        component: Its name, for messages.
        values: What its file holds.
        defaults: What diffusers takes for keys that are absent.
    """

    def __init__(self, component: str, values: dict[str, Any], defaults: dict[str, Any]) -> None:
        self._component = component
        self._values = defaults | values

    def choice(self, key: str, allowed: Sequence[Any]) -> Any:
        """Return a value that must be one of a few.

        Raises:
            UnsuitableModelError: It is another one.
        """
        value = self._values.get(key)
        for each in allowed:
            if type(value) is type(each) and value == each:
                return each
        raise self.unsupported(key)

    def number(self, key: str, least: float, most: float) -> float:
        """Return a finite number.

        Raises:
            UnsuitableModelError: It is none, or out of range.
        """
        value = self._values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.unsupported(key)
        return float(value)

    def whole(self, key: str, least: int, most: int) -> int:
        """Return a whole number, which may be written as 1000.0.

        Raises:
            UnsuitableModelError: It is none, or out of range.
        """
        value = self.number(key, least, most)
        if value != int(value):
            raise self.unsupported(key)
        return int(value)

    def unsupported(self, key: str) -> UnsuitableModelError:
        """Name the key and its value in an error."""
        value = repr(self._values.get(key))[:60]
        return UnsuitableModelError(f"its {self._component} has {key} = {value}, which is not offered")


def read_json(path: Path, otherwise: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: Of the file.
        otherwise: What to say if it is not there.

    Raises:
        UnsuitableModelError: It is missing, or no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UnsuitableModelError(f"{otherwise}: {path.name} cannot be read") from error
    except (ValueError, RecursionError) as error:
        raise UnsuitableModelError(f"{path.parent.name}/{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnsuitableModelError(f"{path.parent.name}/{path.name} is not a JSON object")
    return content


class Files(NamedTuple):
    """Which of the files of a component are read."""

    variant: str | None
    """None, or "fp16" if there are no others."""
    safetensors: bool
    """Whether they are; else PyTorch's own (`.bin`), of which only numbers are read, too."""


def check_files(folders: Mapping[str, Path]) -> dict[str, Files]:
    """Make sure that every component has its files, and numbers where numbers must be.

    Args:
        folders: By component; those that have neither weights nor words are left out.

    Returns:
        By component with weights, which of its files to read.

    Raises:
        UnsuitableModelError: A file is missing, empty or of a kind that is not read.
    """
    files = {}
    for component, folder in folders.items():
        if component not in _STEMS:
            continue
        config = read_json(folder / "config.json", f"its component {component} is missing")
        for key in _NEEDED[component] & set(config):
            numbers = config[key] if isinstance(config[key], list) else [config[key]]
            if not numbers or not all(map(_is_positive, numbers)):
                raise Config(component, config, {}).unsupported(key)
        files[component] = _files(component, folder)
    for component, folder in folders.items():
        if component.startswith("tokenizer"):
            _check_words(component, folder)
    return files


def _check_words(component: str, folder: Path) -> None:
    for names in (("tokenizer.json",), ("vocab.json", "merges.txt")):
        if all(_has_content(folder / name) for name in names):
            return
    raise UnsuitableModelError(f"its {component} is missing: tokenizer.json, or vocab.json and merges.txt")


def _is_positive(number: Any) -> bool:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and math.isfinite(number) and 0 < number < 1e9


def _files(component: str, folder: Path) -> Files:
    stem = _STEMS[component]
    for variant in (None, "fp16"):
        name = stem if variant is None else f"{stem}.{variant}"
        if (
            _has_content(folder / f"{name}.safetensors")
            or (folder / f"{name}.safetensors.index.json").exists()
        ):
            return Files(variant, safetensors=True)
    of_torch = "pytorch_model" if stem == "model" else stem
    for variant in (None, "fp16"):
        if _has_content(folder / (f"{of_torch}.bin" if variant is None else f"{of_torch}.{variant}.bin")):
            return Files(variant, safetensors=False)
    raise UnsuitableModelError(f"its {component} has no weights: {stem}.safetensors is missing or empty")


def _has_content(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
