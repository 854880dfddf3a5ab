"""`tilewire upscale`, as its users see it."""

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from onnx_models import load_catalogue
from server.commands import embedded
from server.commands.memory import Limit
from server.commands.upscale.estimate import seconds_for
from server.commands.upscale.plan import Options, make_plan
from server.commands.upscale.record import Record
from server.commands.upscale.sizing import Offer, Wanted, factor_for
from server.commands.upscale.sources import find_sources
from server.serving import EmbeddedServer
from tests.server.conftest import Tilewire
from tests.server.support.harness import FAST_MODEL, KEY, PATIENCE, make_image, socket_url
from tests.server.support.process import REPOSITORY, environment

FAST = ("--model", FAST_MODEL, "--factor", "2")
FACTORS = ("0.9", "0", "-2", "nan", "17")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def photo(folder: Path) -> Path:
    return save(folder / "photo.jpg", make_image(24, 16, "JPEG"))


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def shape(path: Path) -> tuple[str | None, tuple[int, int]]:
    """Format and size of an image file."""
    image = Image.open(path)
    image.load()
    return image.format, image.size


@pytest.fixture
def upscale(tilewire: Tilewire, server: EmbeddedServer) -> Tilewire:
    """Runs `tilewire upscale` with a server that is there already, which is quicker than one just for it."""
    return lambda *arguments, **more: tilewire(
        "upscale", *arguments, "--url", socket_url(server), "--key", KEY, **more
    )


def test_a_file_is_upscaled_beside_itself(tilewire: Tilewire, photo: Path) -> None:
    result = tilewire("upscale", photo, *FAST)
    assert (result.exit_code, result.stderr) == (0, "")
    assert shape(photo.with_name("photo-2x.jpg")) == ("JPEG", (48, 32))
    told, summary = result.stdout.splitlines()
    assert told == f"{photo} → {photo.with_name('photo-2x.jpg')}"
    assert re.fullmatch(r"1 picture, 0.00154 megapixels, \d+\.\d s", summary)


def test_without_a_factor_the_models_largest_is_taken(tilewire: Tilewire, photo: Path) -> None:
    assert tilewire("upscale", photo, "--model", FAST_MODEL).exit_code == 0
    assert shape(photo.with_name("photo-4x.jpg")) == ("JPEG", (96, 64))


@pytest.mark.parametrize(
    ("wanted", "size", "name"),
    [
        (("--width", "48"), (48, 32), "photo-2x.jpg"),
        (("--height", "40"), (60, 40), "photo-2.5x.jpg"),
        (("--width", "48", "--height", "24"), (36, 24), "photo-1.5x.jpg"),
        (("--megapixels", "0.003456"), (72, 48), "photo-3x.jpg"),
    ],
)
def test_a_size_may_be_given_in_place_of_a_factor(
    upscale: Tilewire, photo: Path, wanted: tuple[str, ...], size: tuple[int, int], name: str
) -> None:
    assert upscale(photo, "--model", FAST_MODEL, *wanted).exit_code == 0
    assert shape(photo.with_name(name)) == ("JPEG", size)


@pytest.mark.parametrize(
    ("mode", "name", "size"),
    [
        ("crop", "40x40", (40, 40)),
        ("stretch", "40x40", (40, 40)),
        ("fill", "2.5x", (60, 40)),
        ("fit", "1.667x", (40, 27)),
    ],
)
def test_a_width_and_a_height_mean_what_the_mode_says(
    upscale: Tilewire, photo: Path, mode: str, name: str, size: tuple[int, int]
) -> None:
    options = ("--model", FAST_MODEL, "--width", "40", "--height", "40", "--resize-mode", mode)
    assert upscale(photo, *options).exit_code == 0
    assert shape(photo.parent / f"photo-{name}.jpg") == ("JPEG", size)
    assert "1 done before" in upscale(photo, *options).stdout


def test_a_size_that_the_model_cannot_make_is_reported(upscale: Tilewire, photo: Path) -> None:
    result = upscale(photo, "--model", FAST_MODEL, "--width", "2400")
    assert result.exit_code == 1
    assert f"{photo}: 24 × 16 pixels would be upscaled by 100" in result.stderr


def test_several_files_become_several_files(upscale: Tilewire, folder: Path) -> None:
    inputs = [save(folder / f"{n}.png", make_image(20, 10, seed=n)) for n in range(6)]
    assert upscale(*inputs, *FAST).exit_code == 0
    for file in inputs:
        assert shape(file.with_name(f"{file.stem}-2x.png")) == ("PNG", (40, 20))


def test_a_folder_means_the_images_in_it(upscale: Tilewire, folder: Path, tmp_path: Path) -> None:
    save(folder / "a.png", make_image())
    save(folder / "b.WEBP", make_image(image_format="WEBP"))
    save(folder / "c.jfif", make_image(image_format="JPEG"))
    save(folder / "notes.txt", b"not an image, and not meant as one")
    save(folder / "photo.heic", b"of a telephone")
    (folder / "inner.png").mkdir()
    result = upscale(folder, "-o", tmp_path / "out", *FAST)
    assert result.exit_code == 0
    assert names(tmp_path / "out") == ["a-2x.png", "b-2x.webp", "c-2x.jpg"]
    told = f"2 skipped: no picture of a known format ({folder / 'notes.txt'}, {folder / 'photo.heic'})"
    assert told in result.stdout


def test_what_is_skipped_is_named_where_there_is_nothing_else(upscale: Tilewire, folder: Path) -> None:
    heic = save(folder / "photo.heic", b"of a telephone")
    result = upscale(folder)
    assert (result.exit_code, result.stderr) == (
        2,
        f"there are no images to upscale: {heic} is of no known format\n",
    )


def test_an_output_file_says_where_and_in_which_format(
    upscale: Tilewire, photo: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "result.webp"
    assert upscale(photo, "-o", target, *FAST).exit_code == 0
    assert shape(target) == ("WEBP", (48, 32))


def test_an_output_folder_that_is_there_is_used(upscale: Tilewire, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.d"
    out.mkdir()
    assert upscale(photo, "-o", out, *FAST).exit_code == 0
    assert shape(out / "photo-2x.jpg") == ("JPEG", (48, 32))


@pytest.mark.parametrize(
    ("asked", "suffix", "image_format"),
    [("PNG", "png", "PNG"), ("webp", "webp", "WEBP"), ("jpeg", "jpg", "JPEG")],
)
def test_a_format_may_be_asked_for(
    upscale: Tilewire, photo: Path, asked: str, suffix: str, image_format: str
) -> None:
    assert upscale(photo, "--format", asked, *FAST).exit_code == 0
    assert shape(photo.with_name(f"photo-2x.{suffix}")) == (image_format, (48, 32))


def test_what_cannot_be_written_again_becomes_png(upscale: Tilewire, folder: Path) -> None:
    save(folder / "old.bmp", make_image(image_format="BMP"))
    assert upscale(folder, *FAST).exit_code == 0
    assert shape(folder / "old-2x.png") == ("PNG", (48, 32))


def test_quality_is_passed_on(upscale: Tilewire, folder: Path) -> None:
    source = save(folder / "a.png", make_image(60, 60))
    sizes = []
    for quality in (30, 99):
        target = folder / f"{quality}.jpg"
        assert upscale(source, "-o", target, "--quality", quality, *FAST).exit_code == 0
        sizes.append(target.stat().st_size)
    assert sizes[0] < sizes[1]


def test_metadata_is_kept_when_asked_for(upscale: Tilewire, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    source = save(folder / "a.jpg", make_image(image_format="JPEG", exif=exif))
    for flags, kept in (((), None), (("--keep-metadata",), "Camera")):
        assert upscale(source, *FAST, "--overwrite", *flags).exit_code == 0
        assert Image.open(folder / "a-2x.jpg").getexif().get(0x010F) == kept


def test_colours_that_are_hidden_are_kept_when_asked_for(upscale: Tilewire, folder: Path) -> None:
    texture = Image.open(io.BytesIO(make_image(24, 16))).convert("RGB")
    texture.putalpha(0)
    texture.save(folder / "texture.png")
    save(folder / "photo.jpg", make_image(24, 16, "JPEG"))
    assert upscale(folder, *FAST, "--keep-hidden-colors").exit_code == 0
    kept = Image.open(folder / "texture-2x.png")
    assert kept.getextrema()[3] == (0, 0)
    assert max(high - low for low, high in kept.convert("RGB").getextrema()) > 100
    assert shape(folder / "photo-2x.jpg")[0] == "JPEG"
    result = upscale(folder, *FAST, "--keep-hidden-colors", "--format", "JPG")
    assert result.exit_code == 2
    assert "JPG has no transparency" in result.stderr


def test_seams_flips_and_a_second_model_are_passed_on_and_make_another_result(
    upscale: Tilewire, tilewire: Tilewire, folder: Path
) -> None:
    save(folder / "a.png", make_image(24, 16))
    more = ("--seamless", "x", "--tta", "--blend", "anime", "--visibility", "0.3")
    assert upscale(folder, *FAST).exit_code == 0
    plain = (folder / "a-2x.png").read_bytes()
    assert upscale(folder, *FAST, *more).exit_code == 0
    made = (folder / "a-2x.png").read_bytes()
    assert made != plain
    assert "1 done before" in upscale(folder, *FAST, *more).stdout
    assert tilewire("upscale", folder / "a.png", *FAST, *more, "-o", folder / "here.png").exit_code == 0
    assert (folder / "here.png").read_bytes() == made
    failed = upscale(folder / "a.png", *FAST, "--setting", "denoise=1", "-o", folder / "b.png")
    assert failed.exit_code == 1
    assert "no setting 'denoise'" in failed.stderr
    assert failed.stdout == "1 failed\n"


def test_what_is_not_an_image_is_told_and_the_others_are_done(upscale: Tilewire, folder: Path) -> None:
    bad = save(folder / "bad.png", b"no image at all")
    good = [save(folder / name, make_image()) for name in ("a.png", "z.png")]
    result = upscale(good[0], bad, good[1], *FAST)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.startswith(f"{bad}: ")]
    assert "mage" in result.stderr
    assert "bad" not in result.stdout
    assert result.stdout.endswith("; 1 failed\n")
    for file in good:
        assert shape(file.with_name(f"{file.stem}-2x.png")) == ("PNG", (48, 32))


@pytest.mark.parametrize("name", ["[a] :heart:.jpg", "[bold]x[ red].jpg", "spaß 日本.jpg", "-x [dim].jpg"])
def test_any_file_name_is_shown_as_it_is(upscale: Tilewire, folder: Path, name: str) -> None:
    good = save(folder / name, make_image(image_format="JPEG"))
    bad = save(folder / f"bad {name}", b"nothing")
    result = upscale(good, bad, *FAST)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{good} → ")
    assert result.stderr.startswith(f"{bad}: ")
    missing = upscale(folder / f"missing {name}")
    assert missing.stderr == f"{folder / f'missing {name}'} does not exist\n"


def test_a_missing_file_stops_before_any_work(upscale: Tilewire, photo: Path) -> None:
    result = upscale(photo, photo.with_name("missing.jpg"), *FAST)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "missing.jpg does not exist" in result.stderr
    assert not photo.with_name("photo-2x.jpg").exists()


def test_an_empty_folder_is_told(upscale: Tilewire, folder: Path) -> None:
    result = upscale(folder)
    assert (result.exit_code, result.stderr) == (2, "there are no images to upscale\n")


def test_a_wrong_model_is_told_with_those_there_are(tilewire: Tilewire, photo: Path) -> None:
    result = tilewire("upscale", photo, "--model", "nonsense")
    assert result.exit_code == 2
    assert "'nonsense'" in result.stderr
    assert FAST_MODEL in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--format", "bmp"), "JPG, PNG or WEBP"),
        (("-o", "result.tiff"), "result.tiff"),
        (("--quality", "5"), "--quality"),
        (("--factor", "much"), "--factor"),
        *((("--model", FAST_MODEL, f"--factor={bad}"), f"{FAST_MODEL} upscales by") for bad in FACTORS),
        (("--factor", "2", "--width", "100"), "not several of them"),
        (("--megapixels", "0"), "--megapixels"),
        (("--width", "40", "--resize-mode", "crop"), "--resize-mode"),
        (("--url", "ws://127.0.0.1:9/v1"), "key"),
        (("--seamless", "z"), "--seamless"),
        (("--setting", "denoise"), "NAME=VALUE"),
        (("--blend", "nonsense"), "'nonsense'"),
        (("--visibility", "0.5"), "--blend"),
        (("--blend", FAST_MODEL, "--visibility", "1.5"), "--visibility"),
    ],
)
def test_a_wrong_option_is_told_before_any_work(
    tilewire: Tilewire, photo: Path, options: tuple[str, ...], told: str
) -> None:
    result = tilewire("upscale", photo, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_results_of_one_name_get_different_ones(upscale: Tilewire, folder: Path, tmp_path: Path) -> None:
    for name in ("a.gif", "a.png", "b/a.gif", "c/a.gif"):
        (folder / name).parent.mkdir(exist_ok=True)
        save(folder / name, make_image(image_format=name[-3:].upper()))
    given = [folder / "a.gif", folder / "a.png", folder / "b", folder / "c"]
    result = upscale(*given, "-o", tmp_path / "out", *FAST)
    assert result.exit_code == 0
    assert names(tmp_path / "out") == [
        "a-2x.png",
        "a.gif (2)-2x.png",
        "a.gif (3)-2x.png",
        "a.gif-2x.png",
    ]
    result = upscale(folder, "-o", folder / "one.png", *FAST)
    assert result.exit_code == 2
    assert "4 inputs" in result.stderr


def test_a_result_that_cannot_be_written_is_told(upscale: Tilewire, photo: Path, folder: Path) -> None:
    save(folder / "file", b"")
    result = upscale(photo, "-o", folder / "file" / "result.jpg", *FAST)
    assert result.exit_code == 1
    assert str(folder / "file") in result.stderr


def names(folder: Path) -> list[str]:
    """The files in a folder and below."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_a_folder_keeps_its_structure(upscale: Tilewire, folder: Path, tmp_path: Path) -> None:
    for name in ("a.png", "trip/b.png", "trip/day 1/c.png", ".hidden/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder / name, make_image())
    out = tmp_path / "out"
    assert upscale(folder, "-o", out, *FAST).exit_code == 0
    assert names(out) == ["a-2x.png", "trip/b-2x.png", "trip/day 1/c-2x.png"]


def test_a_pattern_keeps_the_structure_too(upscale: Tilewire, folder: Path, tmp_path: Path) -> None:
    for name in ("a.png", "trip/b.png", "trip/c.jpg", "trip/d.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        save(folder / name, make_image())
    for pattern, expected in (
        ("**/*.png", ["a-2x.png", "trip/b-2x.png"]),
        ("*/*", ["b-2x.png", "c-2x.jpg"]),
    ):
        out = tmp_path / str(len(expected)) / pattern[:1].replace("*", "x") / pattern[1:2].replace("/", "y")
        assert upscale(folder / pattern, "-o", out, *FAST).exit_code == 0
        assert [Path(name).name for name in names(out)] == [Path(name).name for name in expected]


def test_what_was_made_in_the_same_way_is_skipped(upscale: Tilewire, photo: Path) -> None:
    target = photo.with_name("photo-2x.jpg")
    assert upscale(photo, *FAST).exit_code == 0
    first = target.stat().st_mtime_ns
    os.utime(photo)
    again = upscale(photo, *FAST)
    assert (again.exit_code, again.stdout) == (0, f"1 done before ({target}; --overwrite does it again)\n")
    assert target.stat().st_mtime_ns == first
    moved = photo.parent.rename(photo.parent.with_name("moved"))
    assert "1 done before" in upscale(moved, *FAST).stdout
    assert upscale(moved / photo.name, "--overwrite", *FAST).exit_code == 0
    assert (moved / target.name).stat().st_mtime_ns != first


def test_what_would_be_made_differently_is_made_again(upscale: Tilewire, photo: Path) -> None:
    target = photo.with_name("out.png")
    made = set()
    for how in (
        ("--factor", "2"),
        ("--factor", "3"),
        ("--factor", "3", "--model", "realesrgan-x4plus-anime"),
        ("--factor", "3", "--format", "WEBP"),
        ("--factor", "3", "--format", "WEBP", "--quality", "30"),
    ):
        result = upscale(photo, "-o", target, "--model", FAST_MODEL, *how)
        assert (result.exit_code, result.stderr) == (0, "")
        made.add(target.read_bytes())
    assert len(made) == 5
    os.utime(save(photo, make_image(24, 16, "JPEG", seed=1)), (0, 0))  # another picture, not a newer file
    assert upscale(photo, "-o", target, *FAST).exit_code == 0
    assert target.read_bytes() not in made


def test_a_file_that_is_no_result_is_kept_unless_it_is_empty(upscale: Tilewire, photo: Path) -> None:
    target = save(photo.with_name("photo-2x.jpg"), b"of somebody else")
    result = upscale(photo, *FAST)
    assert (result.exit_code, target.read_bytes()) == (1, b"of somebody else")
    assert str(target) in result.stderr
    assert "--overwrite" in result.stderr
    save(target, b"")
    assert upscale(photo, *FAST).exit_code == 0
    image = Image.open(target)
    image.transpose(Image.Transpose.ROTATE_180).save(target)  # now it is somebody's own work
    assert upscale(photo, *FAST).exit_code == 1
    assert upscale(photo, *FAST, "--overwrite").exit_code == 0
    assert shape(target) == ("JPEG", (48, 32))


def test_mistakes_are_reported_also_where_all_is_done(
    tilewire: Tilewire, server: EmbeddedServer, photo: Path
) -> None:
    assert tilewire("upscale", photo, "-o", photo.with_name("x.jpg"), *FAST).exit_code == 0
    again = ("upscale", photo, "-o", photo.with_name("x.jpg"), *FAST)
    assert tilewire(*again, "--model", "nonsense").exit_code == 2
    assert tilewire(*again, "--url", socket_url(server), "--key", "wrong").exit_code == 1
    assert tilewire(*again, "--url", "ws://127.0.0.1:9", "--key", KEY).exit_code == 1
    assert tilewire(*again, "--url", socket_url(server), "--key", KEY, "--model", "nonsense").exit_code == 2
    assert "1 done before" in tilewire(*again, "--url", socket_url(server), "--key", KEY).stdout


def test_without_a_place_for_the_record_files_that_exist_are_kept(
    tilewire: Tilewire, photo: Path, tmp_path: Path
) -> None:
    nowhere = {"XDG_STATE_HOME": str(save(tmp_path / "file", b""))}
    assert tilewire("upscale", photo, *FAST, **nowhere).exit_code == 0
    result = tilewire("upscale", photo, *FAST, **nowhere)
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr


def test_how_long_it_takes_is_known_from_how_long_it_took(
    tilewire: Tilewire, folder: Path, tmp_path: Path
) -> None:
    photo = save(folder / "large.png", make_image(400, 320))
    record = Record(tmp_path / "state" / "tilewire" / "results.db")
    air = load_catalogue().get(FAST_MODEL).air
    assert record.seconds(air) is None
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert tilewire("upscale", photo, *FAST, **state).exit_code == 0
    took = record.seconds(air)
    assert took is not None
    record.learn(air, 3 * took)
    assert record.seconds(air) == pytest.approx(2 * took)

    def expected(factor: float, **more: Any) -> float | None:
        offer = Offer(FAST_MODEL, air, (2, 3, 4), True, 10.0)
        options = Options(wanted=Wanted(factor=factor), **more)
        found = find_sources([str(photo)], None)
        plan = make_plan(found, options, offer, Limit(1000, "x"), record, into_folder=False)
        return seconds_for(plan.jobs, options, offer)

    assert expected(4) == pytest.approx(10 * 1600 * 1280 / 1e6)
    assert expected(8) == pytest.approx(10 * (800 * 640 + 3200 * 2560) / 1e6)
    assert expected(4, tta=True) == pytest.approx(8 * 10 * 1600 * 1280 / 1e6)
    assert expected(4, settings={"steps": 9}) is None, "that changes the time, nobody knows how"


def test_a_damaged_record_is_begun_anew(tilewire: Tilewire, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "state" / "tilewire").mkdir(parents=True)
    save(tmp_path / "state" / "tilewire" / "results.db", b"no database" * 100)
    for told in ("1 picture", "1 done before"):
        assert told in tilewire("upscale", photo, *FAST, XDG_STATE_HOME=str(tmp_path / "state")).stdout


@pytest.mark.parametrize(
    ("output", "more"),
    [
        (None, ("--overwrite",)),
        (None, ("--factor", "3")),
        (".", ()),
        ("larger", ("--factor", "3")),
        ("larger/still", ("--overwrite",)),
        ("larger/still", ("--factor", "3")),
    ],
)
def test_results_are_never_upscaled_again(
    upscale: Tilewire, folder: Path, output: str | None, more: tuple[str, ...]
) -> None:
    for name in ("a.png", "trip/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        save(folder / name, make_image())
    where = () if output is None else ("-o", folder / output)
    assert upscale(folder, *where, *FAST).exit_code == 0
    first = names(folder)
    assert len(first) == 4
    assert upscale(folder, *where, *FAST, *more).exit_code == 0
    assert upscale(folder, *FAST, *more).exit_code == 0, "now beside the inputs"
    assert not [name for name in names(folder) if re.search(r"x-\dx", name)]


def test_results_that_the_shell_names_are_left_out(upscale: Tilewire, photo: Path) -> None:
    assert upscale(photo, *FAST).exit_code == 0
    result = upscale(*sorted(photo.parent.glob("*.jpg")), "--model", FAST_MODEL, "--factor", "3")
    assert result.exit_code == 0
    assert "; 1 left out as earlier results (" in result.stdout
    assert names(photo.parent) == ["photo-2x.jpg", "photo-3x.jpg", "photo.jpg"]


def test_a_file_that_is_named_alone_is_upscaled_whatever_its_name(upscale: Tilewire, folder: Path) -> None:
    save(folder / "a.png", make_image())
    save(folder / "a-2x.png", make_image())
    assert upscale(folder / "a-2x.png", *FAST).exit_code == 0
    assert "a-2x-2x.png" in names(folder)


def test_files_that_are_named_are_all_upscaled(upscale: Tilewire, folder: Path, tmp_path: Path) -> None:
    logos = [save(folder / name, make_image(seed=seed)) for seed, name in enumerate(("a.png", "a-2x.png"))]
    assert upscale(*logos, "-o", tmp_path / "out", *FAST).exit_code == 0
    assert names(tmp_path / "out") == ["a-2x-2x.png", "a-2x.png"]
    assert upscale(*logos, *FAST).exit_code == 0, "no input is taken for the place of a result"
    assert names(folder) == ["a-2x-2x.png", "a-2x.png", "a.png", "a.png-2x.png"]


def test_no_input_is_overwritten(upscale: Tilewire, photo: Path) -> None:
    before = photo.read_bytes()
    result = upscale(photo, "-o", photo, *FAST)
    assert (result.exit_code, result.stderr) == (2, f"{photo} is an input and would be overwritten\n")
    assert photo.read_bytes() == before
    (photo.parent.parent / "link").symlink_to(photo.parent)
    result = upscale(photo, "-o", photo.parent.parent / "link" / photo.name, *FAST)
    assert (result.exit_code, photo.read_bytes()) == (2, before)


def test_no_half_file_is_left(upscale: Tilewire, folder: Path) -> None:
    save(folder / "a.png", make_image())
    (folder / "a-2x.png").mkdir()
    assert upscale(folder / "a.png", *FAST).exit_code == 1
    assert names(folder) == ["a.png"]


def test_targets_are_used_as_what_they_are(upscale: Tilewire, photo: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked.png"
    (tmp_path / "link.png").symlink_to("linked.png")
    assert upscale(photo, "-o", tmp_path / "link.png", *FAST).exit_code == 0
    assert (tmp_path / "link.png").is_symlink()
    assert shape(linked) == ("PNG", (48, 32))
    linked.chmod(0o600)
    assert upscale(photo, "-o", linked, *FAST, "--overwrite").exit_code == 0
    assert linked.stat().st_mode & 0o777 == 0o600
    assert upscale(photo, "-o", "/dev/null", *FAST).exit_code == 0
    assert not Path("/dev/null").is_file()
    assert upscale(photo, "-o", f"{tmp_path / '2024.11.28'}/", *FAST).exit_code == 0
    assert names(tmp_path / "2024.11.28") == ["photo-2x.jpg"]


def test_a_fifo_is_written_to_when_somebody_reads_it(upscale: Tilewire, photo: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        assert upscale(photo, "-o", tmp_path / "pipe", *FAST).exit_code == 0
        assert reader.communicate()[0].startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("stem", ["a" * 229, "漢" * 75])
def test_long_names_are_written(upscale: Tilewire, folder: Path, stem: str) -> None:
    source = save(folder / f"{stem}.png", make_image())
    assert upscale(source, *FAST).exit_code == 0
    assert shape(folder / f"{stem}-2x.png") == ("PNG", (48, 32))


def test_a_name_that_cannot_be_is_reported_and_the_others_are_done(upscale: Tilewire, folder: Path) -> None:
    for stem in ("a" * 251, "b"):
        save(folder / f"{stem}.png", make_image())
    result = upscale(folder, *FAST)
    assert result.exit_code == 1
    assert "too long" in result.stderr
    assert shape(folder / "b-2x.png") == ("PNG", (48, 32))


def test_what_a_terminal_would_obey_is_spelt_out(upscale: Tilewire, folder: Path) -> None:
    name = "\x1b[31mred\u202e\n.png"
    good, bad = save(folder / name, make_image()), save(folder / f"bad{name}", b"")
    result = upscale(good, bad, *FAST)
    assert r"\x1b[31mred\u202e\n.png → " in result.stdout
    assert r"bad\x1b[31mred\u202e\n.png: " in result.stderr
    assert "\x1b" not in result.output
    assert "\x1b" not in upscale(folder / "\x1b[31mmissing").stderr


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(tmp_path: Path, model_directory: Path) -> Run:
    """Runs `tilewire upscale` in a process of its own; nothing may be left in its temporary folder."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def run(*arguments: object, script: str = '"$@"', **more: Any) -> "subprocess.CompletedProcess[bytes]":
        env = environment(tmp_path / "data", model_directory, TMPDIR=str(temporary), **more.pop("env", {}))
        command = [sys.executable, "-m", "server", "upscale", *map(str, arguments)]
        ended = subprocess.run(
            ["bash", "-c", script, "bash", *command],
            env=env, capture_output=True, timeout=PATIENCE, check=False, cwd=REPOSITORY, **more,
        )  # fmt: skip
        assert b"Traceback" not in ended.stderr
        assert not list(temporary.iterdir())
        return ended

    return run


@pytest.fixture
def at(server: EmbeddedServer) -> tuple[str, ...]:
    """The options for a server that is there already."""
    return ("--url", socket_url(server), "--key", KEY)


def test_dashes_are_standard_input_and_output(
    run: Run, photo: Path, tmp_path: Path, at: tuple[str, ...]
) -> None:
    fast = (*FAST, *at)
    through = run("-", *fast, input=photo.read_bytes())
    assert (through.returncode, through.stdout[:3]) == (0, b"\xff\xd8\xff")
    assert b"standard input" in through.stderr
    out = run(photo, "-o", "-", "--format", "PNG", *fast)
    assert (out.returncode, out.stdout[:4]) == (0, b"\x89PNG")
    into = run("-", "-o", tmp_path / "x.webp", *fast, input=photo.read_bytes())
    assert (into.returncode, shape(tmp_path / "x.webp")) == (0, ("WEBP", (48, 32)))
    assert run(photo, "-", "-o", "-", *fast, input=b"").returncode == 2
    full = run(photo, "-o", "-", *fast, script='"$@" > /dev/full')
    assert (full.returncode, b"standard output: No space left" in full.stderr) == (1, True)


@pytest.mark.parametrize(
    ("script", "env", "status", "told"),
    [
        ('"$@"', {"PYTHONIOENCODING": "latin-1"}, 0, b""),
        ('"$@" | head -1; exit ${PIPESTATUS[0]}', {}, 0, b""),
        ('"$@" > /dev/full', {}, 1, b"standard output: No space left on device\n"),
        ('"$@" >&-', {}, 0, b""),
    ],
)
def test_the_batch_is_done_whatever_the_output(
    run: Run, folder: Path, script: str, env: dict[str, str], status: int, told: bytes, at: tuple[str, ...]
) -> None:
    for number in range(6):
        save(folder / f"{number}.png", make_image())
    ended = run(folder, *FAST, *at, script=script, env=env)
    assert (ended.returncode, ended.stderr) == (status, told)
    assert len(names(folder)) == 12


@pytest.mark.parametrize(
    ("number", "status"), [("TERM", 143), pytest.param("HUP", 129, marks=pytest.mark.slow)]
)
def test_a_signal_leaves_nothing(run: Run, folder: Path, tmp_path: Path, number: str, status: int) -> None:
    """In the background of a shell Ctrl-C is ignored; the signals are not."""
    save(folder / "large.png", make_image(3000, 1800))
    save(folder / "small.png", make_image(16, 16))
    until_one_is_done = f"while ! grep -q small {tmp_path}/told; do sleep 0.1; done"
    script = f'"$@" > {tmp_path}/told & {until_one_is_done}; kill -{number} $!; wait $!'
    ended = run(folder, "--model", FAST_MODEL, script=script)
    assert ended.returncode == status
    assert "interrupted: run the same command to go on" in (tmp_path / "told").read_text("utf-8")


def test_loopback_never_goes_through_a_proxy(tilewire: Tilewire, server: EmbeddedServer, photo: Path) -> None:
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    assert tilewire("upscale", photo, *FAST, **proxies).exit_code == 0
    at = ("--url", socket_url(server), "--key", KEY, "--overwrite")
    assert tilewire("upscale", photo, *FAST, *at, **proxies).exit_code == 0


@pytest.mark.parametrize("size", [(4032, 3024), (8064, 6048)])
def test_photographs_of_telephones_have_a_factor_that_fits(size: tuple[int, int]) -> None:
    offer = Offer("any", "any:any@1", (2, 3, 4), fractional=True)
    width, _ = size
    factor = factor_for(Wanted(), offer, size, Limit(1000, "memory"), 65500)
    assert factor == {4032: 4, 8064: 2}[width]
    assert factor_for(Wanted(), offer, size, Limit(128, "max_output_megapixels"), 65500) == pytest.approx(
        {4032: 3, 8064: 1.6}[width]
    )
    with pytest.raises(ValueError, match=r"max_output_megapixels is 128 megapixels; the largest .* is"):
        factor_for(Wanted(factor=4), offer, size, Limit(128, "max_output_megapixels"), 65500)
    with pytest.raises(ValueError, match="no factor fits"):
        factor_for(Wanted(), offer, size, Limit(12, "max_output_megapixels"), 65500)


def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(
    tmp_path: Path, model_directory: Path, folder: Path, tilewire: Tilewire
) -> None:
    for n in range(4):
        save(folder / f"{n}.png", make_image(16, 16))
    save(folder / "large.png", make_image(3000, 1800))
    command = [sys.executable, "-m", "server", "upscale", str(folder), "--model", FAST_MODEL]
    process = subprocess.Popen(
        command,
        env=environment(tmp_path / "data", model_directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    process.stdout.readline()  # one is done
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=2 * PATIENCE)
    assert (process.returncode, errors) == (130, "")
    assert output.endswith("interrupted: run the same command to go on\n")
    (folder / "large.png").unlink()
    again = tilewire("upscale", folder, "--model", FAST_MODEL)
    assert again.exit_code == 0
    assert "done before" in again.stdout
    assert names(folder) == sorted(f"{n}{end}.png" for n in range(4) for end in ("", "-4x"))


def test_the_cost_is_told_where_there_is_one(tilewire: Tilewire, server: EmbeddedServer, photo: Path) -> None:
    result = tilewire("upscale", photo, "--url", socket_url(server), "--key", KEY, *FAST)
    assert re.search(r" s, 0\.\d+ USD\n$", result.stdout)


@pytest.mark.parametrize("key", ["option", "environment"])
def test_a_running_server_can_do_the_work(
    tilewire: Tilewire, server: EmbeddedServer, photo: Path, key: str
) -> None:
    given = ("--key", KEY) if key == "option" else ()
    more = {} if key == "option" else {"TILEWIRE_API_KEY": KEY}
    result = tilewire("upscale", photo, "--url", socket_url(server), *given, *FAST, **more)
    assert (result.exit_code, result.stderr) == (0, "")
    assert shape(photo.with_name("photo-2x.jpg")) == ("JPEG", (48, 32))


def test_a_wrong_key_is_told_once(tilewire: Tilewire, server: EmbeddedServer, folder: Path) -> None:
    for name in ("a.png", "b.png"):
        save(folder / name, make_image())
    result = tilewire("upscale", folder, "--url", socket_url(server), "--key", "wrong")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "the API key is not valid\n"


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9/v1", "ws://localhost:9/v1"])
def test_a_server_that_is_not_there_is_told(tilewire: Tilewire, photo: Path, url: str) -> None:
    result = tilewire("upscale", photo, "--url", url, "--key", KEY)
    assert (result.exit_code, result.stderr) == (1, f"{url} cannot be reached: Connection refused\n")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:9/v1", "nonsense", "", "ws://", "http://x:99999"])
def test_an_address_of_the_wrong_form_is_told(tilewire: Tilewire, photo: Path, url: str) -> None:
    result = tilewire("upscale", photo, "--url", url, "--key", KEY)
    assert result.exit_code == 1
    assert "ws://host:port/v1" in result.stderr


@pytest.fixture
def little_space(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is as good as full."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=False)


def test_without_space_for_the_server_the_command_ends(
    tilewire: Tilewire, photo: Path, little_space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(little_space))
    for needed in (embedded._SPACE, 0):  # it is noticed at the start, or later
        monkeypatch.setattr(embedded, "_SPACE", needed)
        monkeypatch.setattr(embedded, "_LEAST_SPACE", 4 * 2**20)
        result = tilewire("upscale", photo, *FAST)
        assert (result.exit_code, list(little_space.iterdir())) == (1, [])
        assert f"no space left in {little_space}; TMPDIR can name another folder" in result.stderr


def test_a_full_disk_is_reported_for_the_picture(upscale: Tilewire, folder: Path, little_space: Path) -> None:
    source = save(folder / "a.png", make_image(32, 32))
    with (little_space / "fill").open("wb", buffering=0) as fill, suppress(OSError):
        while True:
            fill.write(bytes(2**12))
    result = upscale(source, *FAST, "-o", little_space / "b.png")
    assert (result.exit_code, names(little_space)) == (1, ["fill"])
    assert "No space left on device" in result.stderr
