"""What the failures of runtimes mean: "too large", "this device is gone", or that the model is at fault.

They raise errors without a common class, so only the messages say which. This is the one place that knows
them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError

__all__ = ["as_model_error", "loading"]


@contextmanager
def loading(what: str, device: str) -> Iterator[None]:
    """Load something on a device; whatever a runtime raises becomes a ModelError that says so.

    Args:
        what: such as the name of the file, for the message.
        device: the name of the device.

    Raises:
        ModelError: if it cannot be loaded.
    """
    try:
        yield
    except Exception as error:  # the runtimes' errors share no base class
        raise as_model_error(error, f"{what} cannot be loaded on {device}") from error


def as_model_error(error: Exception, what: str) -> ModelError:
    """What an error of a runtime means, with `what` failed in front of its message."""
    if isinstance(error, ModelError):
        return error
    message = f"{what}: {error if str(error) else type(error).__name__}"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(message):
        return DeviceOutOfMemoryError(message)
    code = _CUDA_FAILURE.search(message)
    if (code and int(code[1]) in _FATAL_CUDA_CODES) or _DEVICE_LOST.search(message):
        return DeviceLostError(message)
    return ModelError(message)


# ONNX Runtime's arena (bfc_arena.cc) and its Resize (resize_impl.cu), which counts the elements of a result
# in 32 bits; CUDA, cuBLAS, cuDNN 8 and 9, C++ and OpenVINO, in this order.
_OUT_OF_MEMORY = re.compile(
    r"failed to allocate (memory|\d+ bytes)"
    r"|is smaller than requested bytes"
    r"|exceeds (supported )?int range"
    r"|CUDA failure 2:|out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR_(DEVICE|HOST)_ALLOCATION_FAILED"
    r"|bad[_ ]alloc|(can ?not|could not) allocate",
    re.IGNORECASE,
)

# cuda_call.cc: "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=…".
_CUDA_FAILURE = re.compile(r"CUDA (?:failure|error) (\d+)", re.IGNORECASE)

# Of these the CUDA runtime's reference says that the process must be ended to use CUDA again, or that there
# is no device: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html#cudaError
_FATAL_CUDA_CODES = frozenset(
    {
        4,  # cudart unloading: the driver shuts down
        46,  # devices unavailable
        100,  # no device
        101,  # invalid device
        214,  # uncorrectable ECC error
        220,  # uncorrectable NVLink error
        700,  # illegal address
        702,  # launch timeout
        709,  # context is destroyed
        710,  # device-side assert
        714,  # hardware stack error
        715,  # illegal instruction
        716,  # misaligned address
        717,  # invalid address space
        718,  # invalid program counter
        719,  # launch failure
        999,  # unknown
    }
)
_DEVICE_LOST = re.compile(
    r"illegal memory access|driver shutting down|device (was |is )?lost|fallen off the bus"
    r"|uncorrectable (ECC|NVLink)|unspecified launch failure|CUDA_ERROR_DEINITIALIZED",
    re.IGNORECASE,
)
