"""Messages between a server and its process that speaks with Ray: pickled, arrays as they are.

A message is its length and the number of its buffers, the lengths of these, the pickle, and the buffers
(pickle's protocol 5, PEP 574: arrays are not copied into the pickle, nor out of it).
"""

import contextlib
import pickle
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Any

__all__ = ["Put", "Wire", "WireClosedError"]

_HEAD = struct.Struct("<QQ")


@dataclass(frozen=True)
class Put:
    """Stands for bytes that were put where all nodes can fetch them."""

    number: int


class WireClosedError(Exception):
    """The other side is gone."""


class Wire:
    """One end of a socket pair. One thread receives; any may send. What comes must be trusted."""

    def __init__(self, end: socket.socket) -> None:
        """Use a connected stream socket."""
        self._socket = end
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Send a message. Blocks while the other side does not read.

        Raises:
            WireClosedError: if the other side is gone.
        """
        taken: list[pickle.PickleBuffer] = []
        content = pickle.dumps(message, protocol=5, buffer_callback=taken.append)
        buffers = [buffer.raw() for buffer in taken]
        lengths = b"".join(len(buffer).to_bytes(8, "little") for buffer in buffers)
        try:
            with self._sending:
                self._socket.sendall(_HEAD.pack(len(content), len(buffers)) + lengths + content)
                for buffer in buffers:
                    self._socket.sendall(buffer)
        except OSError as error:
            raise WireClosedError from error

    def receive(self) -> Any:
        """Wait for the next message. Blocks.

        Raises:
            WireClosedError: if the other side is gone.
        """
        length, count = _HEAD.unpack(self._read(_HEAD.size))
        lengths = self._read(8 * count)
        content = self._read(length)
        buffers = [
            self._read(int.from_bytes(lengths[at : at + 8], "little")) for at in range(0, 8 * count, 8)
        ]
        return pickle.loads(content, buffers=buffers)  # noqa: S301 - of a process that we started

    def _read(self, length: int) -> bytearray:
        content = bytearray(length)
        view = memoryview(content)
        try:
            while view:
                count = self._socket.recv_into(view)
                if count == 0:
                    raise WireClosedError
                view = view[count:]
        except OSError as error:
            raise WireClosedError from error
        return content

    def close(self) -> None:
        """Close it; who waits on it wakes."""
        with contextlib.suppress(OSError):  # closed by the other side
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
