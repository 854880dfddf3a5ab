"""A small FFDNet with random weights: its file, and what it computes, in numpy."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def tensors(channels: int = 8, layers: int = 3, seed: int = 0) -> dict[str, F32]:
    """The last layer gives little beside the picture, which the first ones hand on."""
    random = np.random.default_rng(seed)
    sizes = [13, *[channels] * (layers - 1), 12]
    found: dict[str, F32] = {}
    for number in range(layers):
        shape = (sizes[number + 1], sizes[number], 3, 3)
        found[f"model.{2 * number}.weight"] = random.normal(0, 0.2, shape).astype(np.float32)
        found[f"model.{2 * number}.bias"] = random.normal(0.2, 0.1, shape[:1]).astype(np.float32)
    return found


def denoised(weights: dict[str, F32], pixels: NDArray[np.uint8], sigma: float) -> F32:
    """(H, W, 3) in [0, 1], as the paper says it: pack, convolve with zeros beyond the border, unpack."""
    height, width, _ = pixels.shape
    even = np.pad(pixels, [(0, height % 2), (0, width % 2), (0, 0)], "edge").astype(np.float64) / 255
    parts = [even[dy::2, dx::2, channel] for channel in range(3) for dy in (0, 1) for dx in (0, 1)]
    value = np.stack([*parts, np.full_like(parts[0], sigma / 255)])
    last = len(weights) - 2
    for number in range(0, len(weights), 2):
        value = _convolved(value, weights[f"model.{number}.weight"], weights[f"model.{number}.bias"])
        value = value if number == last else np.maximum(value, 0)
    result = np.empty((*even.shape[:2], 3), np.float32)
    for index, plane in enumerate(value):
        channel, place = divmod(index, 4)
        result[place // 2 :: 2, place % 2 :: 2, channel] = plane
    return result[:height, :width]


def _convolved(value: NDArray[Any], weight: F32, bias: F32) -> NDArray[Any]:
    padded = np.pad(value, [(0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return np.einsum("chwij,ocij->ohw", windows, weight) + bias[:, np.newaxis, np.newaxis]


def file_of(weights: dict[str, F32], *, hidden: Any = None) -> bytes:
    """As PyTorch 1.5 saved it; with something hidden in it that a pickle can have called."""
    file = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(value, file, 2)
    pickler = _Pickler(file, 2)
    pickler.dump(OrderedDict({name: _Tensor(name, array) for name, array in weights.items()}, **hidden or {}))
    pickle.dump(list(weights), file, 2)
    for array in weights.values():
        file.write(array.size.to_bytes(8, "little") + array.astype("<f4").tobytes())
    return file.getvalue()


class _Storage:
    def __init__(self, key: str, count: int) -> None:
        self.pid = ("storage", _Global("torch", "FloatStorage"), key, "cpu", count, None)


class _Tensor:
    def __init__(self, name: str, array: F32) -> None:
        strides = tuple(stride // array.itemsize for stride in array.strides)
        arguments = (_Storage(name, array.size), 0, array.shape, strides, False, OrderedDict())
        self.reduced = (_Global("torch._utils", "_rebuild_tensor_v2"), arguments)


class _Global:
    """Something of PyTorch's, which is not here, by its name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Python's own, whose writing of names can be changed."""

    def persistent_id(self, value: Any) -> Any:
        return value.pid if isinstance(value, _Storage) else None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Global):
            self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, _Tensor):
            function, arguments = value.reduced
            self.save(function)
            self.save(arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)
