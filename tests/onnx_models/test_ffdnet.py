"""FFDNet: read without PyTorch, made into ONNX, pulled from a package."""

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from engines import open_on_cpu
from onnx_models import (
    Auxiliary,
    Catalogue,
    Download,
    InstalledError,
    NotInstalledError,
    Source,
    UnknownModelError,
    UnsuitableModelError,
    load_catalogue,
    pull_model,
    remove_entry,
    verified_file,
)
from onnx_models.cells import pack
from onnx_models.errors import WeightsChecksumError
from onnx_models.ffdnet import convert
from onnx_models.torch_file import read_tensors
from tests.onnx_models.support.ffdnet import denoised, file_of, tensors
from tests.onnx_models.support.publisher import FACTS, published
from tests.onnx_models.support.tiny import open_network

WEIGHTS = tensors()
FILE = file_of(WEIGHTS)


@pytest.fixture
def download(publisher) -> Download:
    publisher.content = FILE
    files = {"tiny.pth": published(FILE, Source(url=publisher.url))}
    facts = FACTS | {"name": "tiny-denoiser", "air": "tilewire:tiny-denoiser@1"}
    return Download(**facts, kind="denoiser", files=files, checkpoint="tiny.pth")


def test_the_numbers_of_a_file_of_pytorch_are_read_without_it():
    read = read_tensors(FILE)
    assert list(read) == list(WEIGHTS)
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(read[name], array)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        FILE[:100],
        FILE[:-1],
        file_of(WEIGHTS, hidden={"evil": Attack()}),
        file_of(WEIGHTS, hidden={"text": "no tensor"}),
    ],
    ids=["empty", "other", "cut early", "cut late", "with code", "with text"],
)
def test_a_file_that_holds_anything_else_is_refused_and_nothing_of_it_is_called(
    content, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsuitableModelError):
        read_tensors(content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(24, 32), (17, 21), (1, 1)])
@pytest.mark.parametrize("sigma", [5.0, 25.0, 75.0])
def test_the_graph_computes_what_the_paper_says(size, sigma, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    network = convert(WEIGHTS)
    network.graph.output.append(helper.make_tensor_value_info("picture", TensorProto.FLOAT, None))
    onnx.save(network, tmp_path / "network.onnx")
    cells = pack(pixels)
    both = np.stack([cells, cells])
    strengths = np.array([sigma, 0], np.float32)
    levels, picture = open_on_cpu(tmp_path / "network.onnx").run_part((both, strengths))
    for index, strength in enumerate(strengths):  # each of a batch has its own
        expected = denoised(WEIGHTS, pixels, float(strength))
        found = picture[index].transpose(1, 2, 0)[: size[0], : size[1]]
        assert np.abs(found - expected).max() < 1e-4
        rounded = np.rint(255 * np.clip(expected, 0, 1))
        assert np.abs(levels[index, : size[0], : size[1]] - rounded).max() <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {name: array for name, array in WEIGHTS.items() if name != "model.2.bias"},
        WEIGHTS | {"model.0.weight": np.zeros((8, 5, 3, 3), np.float32)},
        WEIGHTS | {"extra": np.zeros(1, np.float32)},
    ],
)
def test_tensors_of_another_network_are_refused(wrong):
    with pytest.raises(UnsuitableModelError):
        convert(wrong)


def test_a_denoiser_that_is_pulled_is_no_upscaler_but_is_found(publisher, download, tmp_path):
    pulled, measured = pull_model(download, load_catalogue(), tmp_path, open_network)
    assert (type(pulled), measured) == (Auxiliary, None)
    catalogue = load_catalogue(tmp_path)
    assert catalogue.auxiliary("denoiser") == catalogue.auxiliary("denoiser", "Tiny-Denoiser") == pulled
    assert pulled.name not in [model.name for model in catalogue]
    with pytest.raises(UnknownModelError, match=r"tiny-denoiser is no upscaler: it removes noise .*denoise"):
        catalogue.get("tiny-denoiser")
    with pytest.raises(UnknownModelError, match="no model called 'x' that removes noise"):
        catalogue.auxiliary("denoiser", "x")
    with pytest.raises(InstalledError):
        Catalogue(
            catalogue, default=catalogue.default.name, downloads=[download], auxiliaries=[pulled]
        ).get_download("tiny-denoiser")


def test_without_one_the_error_names_the_command():
    for name in (None, "ffdnet"):
        with pytest.raises(NotInstalledError, match="tilewire models pull ffdnet"):
            load_catalogue().auxiliary("denoiser", name)


def test_a_network_that_changed_is_noticed_and_goes_when_it_is_removed(publisher, download, tmp_path):
    pulled, _ = pull_model(download, load_catalogue(), tmp_path, open_network)
    assert verified_file(pulled) == Path(pulled.file.path)
    Path(pulled.file.path).write_bytes(b"changed")
    with pytest.raises(WeightsChecksumError, match="damaged; remove tiny-denoiser"):
        verified_file(pulled)
    remove_entry(tmp_path, "tiny-denoiser")
    assert not list(tmp_path.glob("[!.]*"))


def test_what_is_no_denoiser_is_not_added(publisher, download, tmp_path):
    publisher.content = content = file_of(tensors() | {"extra": np.zeros(1, np.float32)})
    file = replace(download.files["tiny.pth"], sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    with pytest.raises(UnsuitableModelError):
        pull_model(replace(download, files={"tiny.pth": file}), load_catalogue(), tmp_path, open_network)
    assert not list(tmp_path.glob("[!.]*"))
