"""The files of models on a node."""

from pathlib import Path

import pytest

from engines.devices.parts import Part
from engines.devices.sessions import Network
from engines.errors import DeviceLostError, ModelError
from engines.ray import models
from engines.ray.device import Shipping
from engines.ray.models import ModelStore, bundle_of, pieces_of


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "node")


@pytest.fixture
def part(tmp_path):
    """Two files, of which the first names the second."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet.onnx").write_bytes(b"graph")
    (tmp_path / "unet" / "data").write_bytes(b"weights" * 5)
    return Part(tmp_path / "unet.onnx", data=(tmp_path / "unet" / "data",))


def send(store, model):
    bundle, paths = bundle_of(model)
    coming = store.begin()
    for file, path in zip(bundle.files, paths, strict=True):
        for piece in pieces_of(path):
            store.add(coming, file.name, piece)
    store.finish(coming, bundle)
    return bundle


def test_files_come_as_they_are_and_under_their_names(store, part, monkeypatch):
    monkeypatch.setattr(models, "_PIECE", 10)
    assert not store.has(bundle_of(part)[0])
    bundle = send(store, part)
    assert store.has(bundle)
    there = store.part(part, bundle)
    assert there.path.read_bytes() == b"graph"
    assert (there.path.parent / "unet" / "data").read_bytes() == b"weights" * 5
    assert not list(store.directory.glob(".coming-*"))


def test_the_parts_of_a_network_that_runs_in_blocks_come_with_it(store, small_network):
    bundle = send(store, small_network)
    there = store.network(small_network, bundle)
    assert there.path.read_bytes() == small_network.path.read_bytes()
    if small_network.split is not None:
        assert there.split.body.read_bytes() == small_network.split.body.read_bytes()
    assert (there.scale, there.tile, there.sha256) == (
        small_network.scale,
        small_network.tile,
        small_network.sha256,
    )


def test_a_file_that_has_changed_is_another(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one")
    first, _ = bundle_of(Network(path, 2, 64))
    path.write_bytes(b"other")
    assert bundle_of(Network(path, 2, 64))[0].name != first.name


def test_what_was_damaged_on_the_node_is_sent_again(store, part):
    bundle = send(store, part)
    (store.directory / bundle.name / "unet.onnx").write_bytes(b"rotten")
    assert not store.has(bundle)
    send(store, part)
    assert store.has(bundle)


def test_what_came_damaged_is_refused(store, part):
    bundle, _ = bundle_of(part)
    coming = store.begin()
    store.add(coming, "unet.onnx", b"something else")
    with pytest.raises(ModelError, match="damaged"):
        store.finish(coming, bundle)
    assert not store.has(bundle)
    assert not list(store.directory.glob(".coming-*"))


def test_two_that_send_the_same_do_not_disturb_each_other(store, part):
    bundle, paths = bundle_of(part)
    comings = [store.begin(), store.begin()]
    for file, path in zip(bundle.files, paths, strict=True):
        for coming in comings:
            store.add(coming, file.name, path.read_bytes())
    for coming in comings:
        store.finish(coming, bundle)
    assert store.has(bundle)


def test_what_others_finish_meanwhile_does_not_disturb_who_begins(store, monkeypatch):
    store.begin()
    gone = store.directory / ".coming-gone"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone]))
    store.begin()


def test_pieces_that_could_not_be_put_are_put_again_each_time(part):
    class Link:
        error, count = DeviceLostError("the connection to the cluster is gone"), 0

        def put(self, _piece):
            self.count += 1
            if self.count == 1:
                raise self.error
            return self.count

    link, shipping = Link(), Shipping()
    with pytest.raises(DeviceLostError), shipping.pieces(part.path, link):
        pass
    for count in (2, 3):  # a new cluster does not know what was put into the one before
        with shipping.pieces(part.path, link) as pieces:
            assert pieces == [count]


def test_a_file_that_cannot_be_read_is_an_error_of_its_model():
    with pytest.raises(ModelError, match=r"gone.onnx cannot be sent"):
        bundle_of(Network(Path("/nowhere/gone.onnx"), 2, 64))
