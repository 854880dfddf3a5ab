"""Prompts as the tokens that a text encoder takes. The package `tokenizers` is an extra."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError

__all__ = ["Prompts", "prompts_of"]


class Prompts:
    """The tokenizer of one model; may be used from any thread."""

    def __init__(self, file: Path) -> None:
        """Read the tokenizer.

        Args:
            file: as `tokenizers` writes it; it says how long a prompt may be, and what fills it up.

        Raises:
            ModelError: if it cannot be read, or `tokenizers` is not installed.
        """
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415 - optional
        except ImportError as error:
            raise ModelError(
                "prompts take a package that is not installed; pip install 'tilewire[latent]' brings it"
            ) from error
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # it raises nothing more special
            raise ModelError(f"{file.name} cannot be read: {error}") from error

    def tokens(self, text: str) -> NDArray[np.int64]:
        """The tokens of a prompt, as many as the text encoder takes; what is beyond is left out."""
        return np.array(self._tokenizer.encode(text).ids, np.int64)

    def is_cut(self, text: str) -> bool:
        """Whether a prompt has more tokens than the text encoder takes."""
        return bool(self._tokenizer.encode(text).overflowing)


@lru_cache(8)
def prompts_of(file: Path) -> Prompts:
    """The tokenizer in a file, read once. Blocks; raises what `Prompts` does."""
    return Prompts(file)
