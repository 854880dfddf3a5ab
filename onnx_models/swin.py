"""Swin networks and their descendants, made so that PyTorch's exporters can follow the image's size."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["traceable"]


@contextlib.contextmanager
def traceable(network: "torch.nn.Module") -> Iterator[None]:
    """Let what Swin networks do with windows depend on the image in ways that an exporter can follow.

    They number nine regions of the image by writing into slices of it, and compute the size of the batch as a
    Python number: a trace of one image takes both for constants. What is done here instead is the same; that
    it is, is what the comparison with the untouched network is for.
    """
    with contextlib.ExitStack() as undo:
        for module in network.modules():
            calculate_mask = _mask_of(module)
            if calculate_mask is not None:
                undo.enter_context(_set(module, "calculate_mask", calculate_mask))
                if hasattr(module, "input_resolution"):  # for which there would be a mask that is a constant
                    undo.enter_context(_set(module, "input_resolution", (0, 0)))
            program = sys.modules[type(module).__module__]
            for name, replacement in (("window_reverse", _window_reverse), ("windows2img", _windows2img)):
                if hasattr(program, name):
                    undo.enter_context(_set(program, name, replacement))
        yield


@contextlib.contextmanager
def _set(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    own = name in vars(owner)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _mask_of(module: Any) -> Callable[..., Any] | None:
    """What computes a layer's masks as its `calculate_mask` does, if it is of a kind that is known here."""
    window = getattr(module, "window_size", getattr(module, "split_size", None))
    shift = getattr(module, "shift_size", None)
    if not hasattr(module, "calculate_mask"):
        return None
    if isinstance(window, int) and isinstance(shift, int):  # SwinIR and its descendants
        return lambda size, *_, **__: _mask(size, (window, window), (shift, shift))
    if isinstance(window, (list, tuple)) and isinstance(shift, (list, tuple)):  # DAT, RGT: both orientations
        return lambda height, width, *_, **__: tuple(
            _mask((height, width), window[::step], shift[::step]) for step in (1, -1)
        )
    return None


def _mask(size: Any, window: Sequence[int], shift: Sequence[int]) -> "torch.Tensor":
    """For each window, -100 between pixels that are no neighbours in the image, else 0."""
    import torch  # noqa: PLC0415

    def region(axis: int) -> torch.Tensor:
        position = torch.arange(size[axis])
        borders = size[axis] - window[axis], size[axis] - shift[axis]
        return (position >= borders[0]).float() + (position >= borders[1]).float()

    (height, width), (rows, columns) = size, window
    regions = 3 * region(0)[:, None] + region(1)[None, :]
    windows = regions.view(height // rows, rows, width // columns, columns)
    windows = windows.permute(0, 2, 1, 3).reshape(-1, rows * columns)
    return (windows.unsqueeze(1) != windows.unsqueeze(2)).float() * -100.0


def _window_reverse(windows: Any, window_size: int | Sequence[int], *size: Any) -> Any:
    """Put windows, (N x count, rows, columns, C), back to where they were cut from, (N, H, W, C)."""
    rows, columns = (window_size, window_size) if isinstance(window_size, int) else window_size
    height, width = size[0] if len(size) == 1 else size
    return _windows2img(windows, rows, columns, height, width)


def _windows2img(windows: Any, rows: int, columns: int, height: Any, width: Any) -> Any:
    grid = windows.view(-1, height // rows, width // columns, rows, columns, windows.shape[-1])
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])
