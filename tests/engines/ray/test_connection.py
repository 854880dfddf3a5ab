"""The process that speaks with Ray, here with a Ray that is made for the tests."""

import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from engines.errors import DeviceLostError, ModelError
from engines.ray import connection as module
from engines.ray.connection import Connection, Node
from engines.ray.host import Wanted
from engines.ray.wire import Wire, WireClosedError

FAKES = Path(__file__).parents[1] / "support" / "fake_ray"
WANTED = Wanted("cpu", "auto", "auto", 2)


@pytest.fixture
def connect(monkeypatch):
    """Opens connections, and closes them at the end."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKES), str(Path.cwd())]))
    opened = []

    def connect(address="one:1"):
        opened.append(Connection(address, "tests.engines.support.echo_host:EchoHost", {"greeting": "hello"}))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def test_a_host_is_asked_and_answers_errors_and_pieces_included(connect):
    connection = connect()
    (node,) = connection.nodes()
    assert node == Node("a" * 56, "one aaaaaa", 2, 1)
    link = connection.host("name", node, WANTED)
    assert link.call("describe") == (WANTED, "hello")
    array = np.arange(3 * 2**20, dtype=np.uint8)
    (echoed,) = link.call("echo", array)
    np.testing.assert_array_equal(echoed, array)
    piece = link.put(b"a piece")
    assert link.call("echo", "of a file", piece) == ("of a file", b"a piece")
    with pytest.raises(ModelError, match="it is broken"):
        link.call("fail", "model")
    with pytest.raises(DeviceLostError, match="No space left on device"):
        link.call("fail", "disk")


def test_when_its_process_ends_all_that_was_asked_fails_at_once(connect):
    connection = connect()
    link = connection.host("name", connection.nodes()[0], WANTED)
    with pytest.raises(DeviceLostError, match="the connection to the cluster is gone"):
        link.call("die")
    with pytest.raises(DeviceLostError):
        link.call("describe")
    with pytest.raises(DeviceLostError):
        connection.nodes()


def test_a_cluster_that_hangs_is_given_up(connect, monkeypatch):
    connection = connect("hangs:1")
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with pytest.raises(ModelError, match="has not answered"):
        connection.nodes()
    assert connection._process.wait(10) != 0


def test_what_was_put_may_go_at_any_moment(connect):
    connection = connect()
    piece = connection.put(b"a piece")
    with connection._lock:  # as when the garbage is collected there
        del piece
    assert connection.nodes()


def test_where_nothing_is_the_reason_is_given(connect):
    with pytest.raises(ModelError, match="there is nothing"):
        connect("nowhere:1")


def test_messages_carry_arrays_and_end_with_the_other_side():
    ends = socket.socketpair()
    ours, theirs = map(Wire, ends)
    message = {"tiles": np.ones((4, 300, 300, 3), np.uint8), "empty": np.zeros((0, 3)), "text": "x"}
    sender = threading.Thread(target=ours.send, args=[message])
    sender.start()
    came = theirs.receive()
    sender.join()
    for name in ("tiles", "empty"):
        np.testing.assert_array_equal(came[name], message[name])
    came["tiles"][0] = 7  # whoever has it may write to it
    ours.close()
    with pytest.raises(WireClosedError):
        theirs.receive()
    with pytest.raises(WireClosedError):
        theirs.send(message)
