"""Numbers of PyTorch's files as they were up to version 1.5, read without PyTorch.

Such a file is a row of pickles: a magic number, the version, facts about the machine, the tensors by name,
and the keys of their storages; behind them are the storages' numbers. (`_legacy_load` in
`torch/serialization.py` of https://github.com/pytorch/pytorch.) A pickle may name any function of Python and
have it called: here only the three that tensors of float32 need are known, and everything else is refused.
"""

import collections
import io
import math
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_models.errors import UnsuitableModelError, one_line

__all__ = ["read_tensors"]

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_VERSION: Final = 1001
_MOST: Final = 2**28
"""Numbers in one storage: a gigabyte."""


class _Tensor(NamedTuple):
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(content: bytes) -> dict[str, NDArray[np.float32]]:
    """Read the tensors of a file, by name.

    Args:
        content: The file: a dictionary of contiguous tensors of float32, as `torch.save` wrote it.

    Raises:
        UnsuitableModelError: It is no such file; one that holds anything else is not read any further.
    """
    file = io.BytesIO(content)
    try:
        if _load(file) != _MAGIC or _load(file) != _VERSION:
            raise UnsuitableModelError("it is no file of PyTorch's up to version 1.5")
        _load(file)
        tensors, keys = _load(file), _load(file)
        storages = {str(key): _numbers(file) for key in keys}
        return {str(name): _array(tensor, storages) for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError) as error:
        raise UnsuitableModelError(f"it is broken, or holds more than numbers: {one_line(error)}") from error
    except (KeyError, TypeError, ValueError, MemoryError) as error:
        raise UnsuitableModelError(f"it is broken: {one_line(error)}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not read") from None

    def persistent_load(self, pid: Any) -> str:
        """The key of a storage, whose numbers come at the end of the file."""
        kind, storage, key, _location, _count, view = pid
        if (kind, storage, view) != ("storage", _FLOATS, None):
            raise pickle.UnpicklingError("only whole storages of float32 are read")
        return str(key)


def _load(file: io.BytesIO) -> Any:
    return _Unpickler(file).load()


def _rebuild(
    storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_rest: object
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


_FLOATS: Final = "float32"
_KNOWN: Final[Mapping[tuple[str, str], Callable[..., Any] | str]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch", "FloatStorage"): _FLOATS,
}


def _numbers(file: io.BytesIO) -> NDArray[np.float32]:
    count = int.from_bytes(file.read(8), sys.byteorder)
    if count > _MOST:
        raise ValueError("a storage is too large")
    return np.frombuffer(file.read(4 * count), "<f4", count)


def _array(tensor: _Tensor, storages: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    if not isinstance(tensor, _Tensor):
        raise TypeError("something in it is no tensor")
    strides = [math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
    if list(tensor.strides) != strides:
        raise ValueError("a tensor is not contiguous")
    start, numbers = tensor.offset, storages[tensor.storage]
    return numbers[start : start + math.prod(tensor.shape)].reshape(tensor.shape)
