"""Models from ONNX files: what is made of good ones, and what is said about others."""

from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_models import (
    BrokenEntryError,
    CatalogueError,
    DuplicateModelError,
    Facts,
    MissingWeightsError,
    UnknownModelError,
    UnsuitableModelError,
    WeightsChecksumError,
    add_model,
    built_state,
    ensure_built,
    load_catalogue,
    read_entry,
    remove_entry,
)
from tests.onnx_models.support.tiny import in_windows, network, open_network, save, upscaler


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models"


@pytest.fixture
def add(tmp_path, directory):
    def add(model, *, file="My Model.onnx", **facts):
        return add_model(
            save(tmp_path / file, model), Facts(**facts), load_catalogue(directory), directory, open_network
        )

    return add


def run(model, images):
    return open_network(ensure_built(model, model.weights[0], Path("/nowhere")))(images)


def test_a_float_network_becomes_a_model_of_the_catalogue(add, directory, photograph):
    model, converted = add(upscaler(3))
    assert (model.name, model.air, model.title) == ("my-model", "local:my-model@1", "My Model")
    assert (model.factors, model.fractional, converted.scale) == ((2, 3), True, 3)
    assert load_catalogue(directory).get("local:my-model@1") == model
    images = photograph(9, 14)[np.newaxis]
    upscaled = run(model, images)
    assert (upscaled.shape, upscaled.dtype) == ((1, 27, 42, 3), np.uint8)
    assert abs(upscaled.mean() - images.mean()) < 20


def test_what_is_known_of_it_can_be_told(add):
    model, _ = add(
        upscaler(),
        name="mine",
        air="civitai:1@2",
        title="Mine",
        licence="MIT",
        licence_url="https://example.org/licence",
        price_per_megapixel=Decimal("0.01"),
        overlap=40,
        tile=320,
    )
    assert (model.name, model.air, model.title, model.licence) == ("mine", "civitai:1@2", "Mine", "MIT")
    assert (model.price_per_megapixel, model.overlap, model.tile) == (Decimal("0.01"), 40, 320)


def test_the_overlap_is_as_wide_as_the_network_looks(add):
    assert add(upscaler(reach=3), name="narrow")[1].seam.overlap == 8
    wide = add(upscaler(reach=20), name="wide")[1].seam
    assert wide.overlap >= 16
    assert not wide.visible


def test_a_network_in_half_precision_takes_bytes_too(add, photograph):
    kinds = {"takes": (TensorProto.FLOAT16, ("n", 3, "h", "w")), "gives": (TensorProto.FLOAT16, None)}
    model, _ = add(upscaler(kind=np.float16, **kinds))
    assert run(model, photograph(5, 6)[np.newaxis]).shape == (1, 10, 12, 3)


def test_a_network_exported_for_one_size_is_freed_of_it(add, photograph):
    fixed = {"takes": (TensorProto.FLOAT, (1, 3, 64, 64)), "gives": (TensorProto.FLOAT, (1, 3, 128, 128))}
    model, _ = add(upscaler(**fixed))
    assert run(model, np.stack([photograph(5, 6)] * 2)).shape == (2, 10, 12, 3)


def test_an_old_opset_is_brought_up(add, photograph):
    model, _ = add(upscaler(opset=11))
    assert run(model, photograph(5, 6)[np.newaxis]).shape == (1, 10, 12, 3)


def test_a_file_that_was_built_here_is_added_as_it_is(add, tmp_path, small_model, photograph):
    built = ensure_built(*small_model, tmp_path / "built")
    model, _ = add(onnx.load(built), name="again")
    images = photograph(31, 17)[np.newaxis]
    np.testing.assert_array_equal(run(model, images), open_network(built)(images))


def test_a_network_that_wants_whole_windows_takes_any_image(add, photograph):
    model, converted = add(in_windows(8))
    assert converted.rule.multiple == 8
    for height, width in ((1, 1), (3, 20), (13, 8), (16, 24)):
        image = photograph(height, width)[np.newaxis]
        np.testing.assert_array_equal(run(model, image), image.repeat(2, axis=1).repeat(2, axis=2))


def test_a_name_or_air_that_is_taken_is_refused(add, directory):
    add(upscaler(), name="mine")
    for taken in ({"name": "mine"}, {"name": "realesrgan-x4plus"}, {"air": "runware:504@1"}):
        with pytest.raises(DuplicateModelError, match="is taken by"):
            add(upscaler(), **taken)
    assert len(load_catalogue(directory)) == len(load_catalogue()) + 1


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"name": "../up"}, "'../up' cannot be a model's name"),
        ({"name": "Mine"}, "'Mine' cannot be a model's name"),
        ({"air": "504"}, "^air: "),
        ({"licence_url": "ftp://x"}, "^licence_url: "),
        ({"tile": 10}, "tile must be larger"),
        ({"price_per_megapixel": Decimal(-1)}, "price_per_megapixel must be zero or more"),
    ],
)
def test_a_wrong_fact_is_told(add, directory, facts, told):
    with pytest.raises(CatalogueError, match=told):
        add(upscaler(), **facts)
    assert not directory.exists()


def identity(**more):
    return network([helper.make_node("Identity", ["x"], ["y"])], **more)


def resized(height, width):
    return network(
        [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")],
        {"scales": np.array([1, 1, height, width], np.float32)},
    )


def not_a_number():
    graph = upscaler()
    graph.graph.node[1].output[0] = "z"
    graph.graph.node.append(helper.make_node("Log", ["z"], ["l"]))
    graph.graph.node.append(helper.make_node("Mul", ["l", "l"], ["y"]))
    return graph


def with_custom_operator():
    graph = upscaler()
    graph.graph.node[1].domain = "org.example"
    graph.opset_import.append(helper.make_opsetid("org.example", 1))
    return graph


def one_size_only():
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["same"]),
        helper.make_node("Resize", ["same", "", "scales"], ["y"], mode="nearest"),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    return network(nodes, {"shape": np.array([1, 3, 64, 64]), "scales": scales})


def with_two_inputs():
    graph = upscaler()
    graph.graph.input.append(helper.make_tensor_value_info("degradation", TensorProto.FLOAT, [1]))
    return graph


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (identity(), "does not upscale"),
        (resized(2, 3), r"shape \(1, 3, 128, 192\)"),
        (resized(1.5, 1.5), "larger by a whole factor"),
        (identity(takes=(TensorProto.FLOAT, ("n", 1, "h", "w"))), r"x is float \(n, 1, h, w\)"),
        (identity(takes=(TensorProto.FLOAT, ("n", 9))), r"x is float \(n, 9\)"),
        (identity(takes=(TensorProto.INT64, None)), "x is int64"),
        (not_a_number(), "not finite"),
        (with_custom_operator(), "DepthToSpace of org.example"),
        (with_two_inputs(), "2 inputs and 1 outputs"),
        (one_size_only(), "does not run with an input of 1 x 1 x 1 x 3"),
        (onnx.ModelProto(), "no ONNX file, or an empty one"),
    ],
)
def test_a_network_that_is_no_upscaler_is_refused_with_the_reason(add, directory, model, told):
    with pytest.raises(UnsuitableModelError, match=told):
        add(model)
    assert not directory.exists()


def test_a_scale_that_was_promised_is_compared(add):
    with pytest.raises(UnsuitableModelError, match="its scale is 2, not 4"):
        add(upscaler(2), scale=4)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.onnx", b"no protobuf at all", "broken"),
        ("x.onnx", b"", "no ONNX file, or an empty one"),
        ("x.txt", b"", "only .pth, .ckpt, .safetensors and .onnx"),
        ("x", b"", "only .pth"),
    ],
)
def test_a_file_that_is_no_network_is_refused(tmp_path, directory, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsuitableModelError, match=told):
        add_model(tmp_path / name, Facts(), load_catalogue(), directory, open_network)
    assert not directory.exists()


def test_a_file_that_is_missing_is_told(tmp_path, directory):
    with pytest.raises(UnsuitableModelError, match="no such file"):
        add_model(tmp_path / "x.onnx", Facts(), load_catalogue(), directory, open_network)


def test_weights_beside_the_file_are_taken_in_and_missed(tmp_path, directory):
    file = tmp_path / "large.onnx"
    onnx.save(upscaler(), file, save_as_external_data=True, location="large.bin", size_threshold=0)
    model, _ = add_model(file, Facts(), load_catalogue(), directory, open_network)
    assert run(model, np.zeros((1, 4, 4, 3), np.uint8)).shape == (1, 8, 8, 3)
    (tmp_path / "large.bin").unlink()
    with pytest.raises(UnsuitableModelError, match=r"a part is missing.*large\.bin"):
        add_model(file, Facts(name="other"), load_catalogue(), directory, open_network)


def test_a_network_that_changed_since_is_not_run(add):
    model, _ = add(upscaler())
    file = Path(model.weights[0].file.path)
    assert built_state(model, model.weights[0], Path()) == (file, "good")
    file.write_bytes(file.read_bytes() + b"\0")
    assert built_state(model, model.weights[0], Path()) == (file, "damaged")
    with pytest.raises(WeightsChecksumError, match="is damaged; remove my-model and add it again"):
        ensure_built(model, model.weights[0], Path())
    file.unlink()
    with pytest.raises(MissingWeightsError, match="is missing"):
        ensure_built(model, model.weights[0], Path())


def test_a_model_is_removed_with_its_network(add, directory):
    add(upscaler(), name="mine")
    add(upscaler(), name="mine-too")
    remove_entry(directory, "mine")
    assert {path.name.partition("-2x")[0] for path in directory.glob("[!.]*")} == {
        "mine-too",
        "mine-too.json",
    }
    with pytest.raises(UnknownModelError, match="no model called 'mine' was added; there are mine-too"):
        remove_entry(directory, "mine")


def breaking(directory):
    """Ways in which an entry can be broken, and what is said."""
    entry = directory / "broken.json"
    return {
        "no UTF-8": (
            lambda: entry.write_bytes(entry.read_bytes().replace(b"broken", b"br\xffken")),
            "cannot be read",
        ),
        "no JSON": (lambda: entry.write_text("{", encoding="utf-8"), "cannot be read"),
        "wrong field": (
            lambda: entry.write_text(entry.read_text("utf-8").replace("tile", "tyle"), encoding="utf-8"),
            "tyle",
        ),
        "other name": (
            lambda: entry.write_text(entry.read_text("utf-8").replace('"broken"', '"x"'), encoding="utf-8"),
            "called x",
        ),
        "no network": (lambda: next(directory.glob("broken-*.onnx")).unlink(), "is missing"),
        "taken AIR": (
            lambda: entry.write_text(
                entry.read_text("utf-8").replace("local:broken@1", "runware:504@1"), encoding="utf-8"
            ),
            "claimed by two models",
        ),
    }


@pytest.mark.parametrize(
    "kind", ["no UTF-8", "no JSON", "wrong field", "other name", "no network", "taken AIR"]
)
def test_a_broken_entry_is_named_and_harms_no_other_model(add, directory, caplog, kind):
    add(upscaler(), name="broken")
    add(upscaler(), name="sound")
    damage, told = breaking(directory)[kind]
    damage()
    names = [model.name for model in load_catalogue(directory)]
    assert names == [*(model.name for model in load_catalogue()), "sound"]
    (warning,) = caplog.messages
    assert warning.startswith("the model broken is left out")
    assert told in warning
    remove_entry(directory, "broken")
    assert not list(directory.glob("broken*"))


def test_whatever_byte_of_an_entry_is_wrong_only_that_model_is_left_out(add, directory):
    add(upscaler(), name="mine")
    entry = directory / "mine.json"
    good = entry.read_bytes()
    for place in range(len(good)):
        for wrong in b'\xff\x00"{9':
            entry.write_bytes(good[:place] + bytes([wrong]) + good[place + 1 :])
            with suppress(BrokenEntryError):  # any other error would stop the start
                load_catalogue().with_model(read_entry(entry)) if place % 50 == 0 else read_entry(entry)
    entry.write_bytes(b"[" * 100_000)
    with pytest.raises(BrokenEntryError):
        read_entry(entry)


@pytest.mark.parametrize("other", [{"name": "mine"}, {"name": "other", "air": "local:mine@1"}])
def test_of_two_who_add_one_name_or_air_at_once_the_first_wins(tmp_path, directory, other):
    """The second begins and ends while the first still checks its network."""
    first, second = (save(tmp_path / f"{scale}.onnx", upscaler(scale)) for scale in (2, 3))
    catalogue, done = load_catalogue(directory), []

    def open_late(path):
        if not done:
            done.append(add_model(first, Facts(name="mine"), catalogue, directory, open_network))
        return open_network(path)

    with pytest.raises(DuplicateModelError, match="is taken by 2; choose another one"):
        add_model(second, Facts(**other), catalogue, directory, open_late)
    assert [model.name for model in load_catalogue(directory)][-1] == "mine"
    assert load_catalogue(directory).get("mine") == done[0][0]
    assert sorted(path.suffix for path in directory.glob("[!.]*")) == [".json", ".onnx"]


def test_a_name_with_a_broken_entry_is_not_taken_over(add, directory):
    add(upscaler(), name="mine")
    (directory / "mine.json").write_text("{", encoding="utf-8")
    with pytest.raises(DuplicateModelError, match="its entry is broken; remove it first"):
        add(upscaler(), name="mine")


def test_a_directory_that_is_none_is_named_and_harms_no_other_model(tmp_path, caplog):
    place = tmp_path / "models"
    place.write_bytes(b"")
    assert [model.name for model in load_catalogue(place)] == [model.name for model in load_catalogue()]
    (warning,) = caplog.messages
    assert warning.startswith("the models that were added are left out")
    assert str(place) in warning
    with pytest.raises(BrokenEntryError, match="cannot be read"):
        remove_entry(place, "mine")
