"""The text encoders of Stable Diffusion as one part to export: CLIP's, of which XL has two.

The first returns its last layer, normed; XL's return the last but one. `skip` goes further back, as the clip
skip of other programs does. XL's second encoder reads the same words with another padding, which is put in
place here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_models.diffusers.part import Arrays, Components, Examples, Part

if TYPE_CHECKING:
    import torch

__all__ = ["text_encoder_part"]


def text_encoder_part(found: Components, kind: "torch.dtype", examples: Examples, largest_skip: int) -> Part:
    """The text encoder of a pipeline: tokens and skip become context and, of XL, pooled.

    Args:
        found: The pipeline.
        kind: What it computes in.
        examples: Inputs to try it with.
        largest_skip: How many layers further back the context may be taken.
    """
    import torch  # noqa: PLC0415

    first, second = found.text_encoder, found.text_encoder_2
    norm = getattr(first, "text_model", first).final_layer_norm  # where transformers has it since version 5
    end = found.tokenizer.eos_token_id

    def chosen(states: Sequence[torch.Tensor], skip: torch.Tensor, last: int) -> torch.Tensor:
        """One of the layers for each of the batch: that before the last by `skip`."""
        layers = torch.stack([states[-(last + back)] for back in range(largest_skip + 1)], dim=1)
        places = skip[:, None, None, None].expand(-1, 1, layers.shape[2], layers.shape[3])
        return layers.gather(1, places).squeeze(1)

    class TextEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = first
            self.norm = norm

        def forward(self, tokens: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
            states = self.model(tokens, output_hidden_states=True).hidden_states
            return self.norm(chosen(states, skip, 1)).float()

    class TextEncoders(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, tokens: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            ends = (tokens == end).long()
            padding = ends.cumsum(1) > ends  # all that follows the first end
            others = torch.where(padding, found.tokenizer_2.pad_token_id, tokens)
            one = self.first(tokens, output_hidden_states=True).hidden_states
            two = self.second(others, output_hidden_states=True)
            context = torch.cat((chosen(one, skip, 2), chosen(two.hidden_states, skip, 2)), dim=2)
            return context.float(), two.text_embeds.float()

    def prompts(count: int) -> Arrays:
        ids = examples.ids(count)
        ids[:, ids.shape[1] // 2 :] = end
        return ids, np.arange(count, dtype=np.int64) % (largest_skip + 1)

    batch: dict[int, str] = {0: "batch"}
    module: Any = TextEncoder() if second is None else TextEncoders()
    outputs = ("context",) if second is None else ("context", "pooled")
    return Part(
        "text_encoder", module.eval().to(kind), ("tokens", "skip"), outputs,
        {"tokens": batch, "skip": batch}, (prompts(max(2, largest_skip + 1)), prompts(1)),
    )  # fmt: skip
