"""Face restorers: of ONNX files as face programs share them, and of checkpoints where PyTorch is there."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from engines import open_on_cpu
from onnx_models import (
    Auxiliary,
    Facts,
    LicenceError,
    MissingConverterError,
    Restorer,
    UnsuitableModelError,
    add_model,
    load_catalogue,
    pull_model,
)
from onnx_models.auxiliary import verified_file
from onnx_models.centerface import convert
from onnx_models.probe import texture
from tests.onnx_models.support.faces import like_centerface, restorer
from tests.onnx_models.support.tiny import open_network, save, upscaler

FACE = texture(512, 512)


def open_part(path: Path):
    return open_on_cpu(path).run_part


def add(file: Path, directory: Path, **more):
    return add_model(
        file, Facts(), load_catalogue(directory), directory, open_network, open_part=open_part, **more
    )


def run(auxiliary: Auxiliary, *beside: np.ndarray, faces: np.ndarray = FACE[np.newaxis]) -> np.ndarray:
    (restored,) = open_part(verified_file(auxiliary))((faces, *beside))
    return restored


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("batch", [1, "n"])
def test_an_onnx_file_that_takes_a_face_becomes_a_restorer(batch, kind, tmp_path):
    file = save(tmp_path / "My Faces.onnx", restorer(lighter=0.25, batch=batch, kind=kind))
    added, measured = add(file, tmp_path / "added")
    assert (added.kind, added.name, added.parameters, added.licence) == (
        "faceRestorer",
        "my-faces",
        (),
        "unknown",
    )
    assert isinstance(measured, Restorer)
    assert added.batches == (batch != 1)
    assert load_catalogue(tmp_path / "added").auxiliary("faceRestorer") == added
    expected = np.clip(FACE + 0.25 * 127.5, 0, 255)
    assert np.abs(run(added)[0] - expected).max() <= 1


def test_a_second_input_is_the_weight_of_codeformer_whose_licence_is_to_be_accepted(tmp_path):
    file = save(tmp_path / "codeformer-v0.1.onnx", restorer(lighter=0.5, weight=True, batch=1))
    with pytest.raises(LicenceError, match=r"S-Lab License 1.0 .* excludes commercial use.*--accept-licence"):
        add(file, tmp_path / "added")
    assert not list((tmp_path / "added").glob("[!.]*"))
    added, _ = add(file, tmp_path / "added", accept_licence=True)
    assert (added.parameters, added.licence) == (("weight",), "S-Lab License 1.0 (non-commercial)")
    assert np.abs(run(added, np.array([1], np.float32))[0].astype(int) - FACE).max() <= 1
    assert run(added, np.array([0], np.float32)).mean() > FACE.mean() + 30


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch": 1, "lighter": 5.0}, "a face of one colour"),
        ({"batch": 1, "lighter": float("nan")}, "one colour"),
    ],
)
def test_what_gives_no_face_is_refused(change, told, tmp_path):
    file = save(tmp_path / "a.onnx", restorer(**change))
    with pytest.raises(UnsuitableModelError, match=told):
        add(file, tmp_path / "added")


def test_an_upscaler_is_still_one(tmp_path):
    added, _ = add(save(tmp_path / "a.onnx", upscaler(2)), tmp_path / "added")
    assert added.name in [model.name for model in load_catalogue(tmp_path / "added")]


def test_of_centerface_any_number_and_size_of_pictures_can_be_seen(tmp_path):
    network = convert(like_centerface().SerializeToString())
    look = open_part(save(tmp_path / "detector.onnx", network))
    pictures = np.zeros((2, 64, 96, 3), np.uint8)
    pictures[1, 20:24, 40:44] = (255, 0, 0)
    heat, size, offset, points = look((pictures,))
    assert [each.shape for each in (heat, size, offset, points)] == [
        (2, channels, 16, 24) for channels in (1, 2, 2, 10)
    ]
    assert [tuple(place) for place in np.argwhere(heat > 0.5)] == [(1, 0, 5, 10)]


@pytest.mark.parametrize("content", [b"", b"no ONNX", upscaler(2).SerializeToString()])
def test_what_is_not_centerface_is_refused(content):
    with pytest.raises(UnsuitableModelError):
        convert(content)


def test_pulls_say_what_is_missing_before_anything_is_fetched(tmp_path):
    catalogue = load_catalogue()
    with pytest.raises(LicenceError, match="models pull codeformer --accept-licence"):
        pull_model(catalogue.get_download("codeformer"), catalogue, tmp_path, open_network)
    for name in ("gfpgan-1.4", "restoreformer"):
        try:
            import torch  # noqa: F401, PLC0415
        except ImportError:
            with pytest.raises(MissingConverterError, match=r"tilewire\[convert\]"):
                pull_model(catalogue.get_download(name), catalogue, tmp_path, open_network)


def checkpoint_of(architecture: str):
    """One with random weights, as large as the published one."""
    torch = pytest.importorskip("torch")
    spandrel = pytest.importorskip("spandrel")
    torch.manual_seed(1)
    if architecture == "GFPGAN":
        return spandrel.architectures.GFPGAN.GFPGAN()
    if architecture == "RestoreFormer":
        return spandrel.architectures.RestoreFormer.RestoreFormer()
    pytest.importorskip("spandrel_extra_arches")
    from spandrel_extra_arches.architectures.CodeFormer import CodeFormer  # noqa: PLC0415

    return CodeFormer()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["GFPGAN", "RestoreFormer", "CodeFormer"])
def test_a_checkpoint_computes_what_pytorch_does(architecture, tmp_path):
    torch = pytest.importorskip("torch")
    network = checkpoint_of(architecture).eval()
    file = tmp_path / f"{architecture}.pth"
    torch.save(network.state_dict(), file)
    added, measured = add(file, tmp_path / "added", accept_licence=True)
    assert measured.architecture == architecture
    assert measured.difference < 1e-4
    assert added.batches
    assert (added.parameters == ("weight",)) == (architecture == "CodeFormer")
    planes = np.ascontiguousarray(FACE.transpose(2, 0, 1)[np.newaxis], np.float32)
    signed = torch.from_numpy(planes / np.float32(127.5) - 1)
    how = {
        "GFPGAN": {"randomize_noise": False},
        "CodeFormer": {"weight": 0.7},
    }.get(architecture, {})
    with torch.inference_mode():
        expected = network(signed, **how)[0].numpy().squeeze()
    expected = np.clip((expected.transpose(1, 2, 0) + 1) * 127.5, 0, 255)
    beside = [np.array([0.7, 0.7], np.float32)] if architecture == "CodeFormer" else []
    found = run(added, *beside, faces=np.stack([FACE, FACE]))
    assert np.abs(found - expected).max() <= 1
    assert found.std() > 1


@pytest.mark.slow
def test_a_checkpoint_of_codeformer_needs_its_licence(tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "codeformer.pth"
    torch.save(checkpoint_of("CodeFormer").state_dict(), file)
    with pytest.raises(LicenceError, match=r"a CodeFormer network, whose licence, S-Lab"):
        add(file, tmp_path / "added")
