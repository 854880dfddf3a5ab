"""The command line, as its users see it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpcore
import pytest
from PIL import Image
from sqlalchemy import update

from onnx_models import load_catalogue
from server.serving import EmbeddedServer
from server.specs.version import VERSION
from server.state import ledger
from server.state.accounts import account_named, authenticate
from server.state.database import Database
from server.state.tables import accounts
from tests.server.conftest import Tilewire
from tests.server.support.harness import FAST_MODEL, KEY, PATIENCE, connected, make_image, socket_url
from tests.server.support.process import REPOSITORY, environment, serving

FAST = ("--model", FAST_MODEL, "--factor", "2")


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


def test_a_file_is_upscaled_beside_itself(tilewire: Tilewire, photo: Path) -> None:
    result = tilewire("upscale", photo, *FAST)
    assert (result.exit_code, result.stderr) == (0, "")
    assert shape(photo.with_name("photo-2x.jpg")) == ("JPEG", (48, 32))
    told, summary = result.stdout.splitlines()
    assert told == f"{photo} → {photo.with_name('photo-2x.jpg')}"
    assert re.fullmatch(r"1 picture, 0.00154 megapixels, \d+\.\d s", summary)


def test_without_a_factor_the_models_largest_is_taken(tilewire: Tilewire, photo: Path) -> None:
    assert tilewire("upscale", photo, "--model", FAST_MODEL).exit_code == 0
    assert shape(photo.with_name("photo-upscaled.jpg")) == ("JPEG", (96, 64))


def test_several_files_become_several_files(tilewire: Tilewire, folder: Path) -> None:
    inputs = [save(folder / f"{n}.png", make_image(20, 10, seed=n)) for n in range(6)]
    assert tilewire("upscale", *inputs, *FAST).exit_code == 0
    for file in inputs:
        assert shape(file.with_name(f"{file.stem}-2x.png")) == ("PNG", (40, 20))


def test_a_folder_means_the_images_in_it(tilewire: Tilewire, folder: Path, tmp_path: Path) -> None:
    save(folder / "a.png", make_image())
    save(folder / "b.WEBP", make_image(image_format="WEBP"))
    save(folder / "notes.txt", b"not an image, and not meant as one")
    (folder / "inner.png").mkdir()
    result = tilewire("upscale", folder, "-o", tmp_path / "out", *FAST)
    assert result.exit_code == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a-2x.png", "b-2x.webp"]


def test_an_output_file_says_where_and_in_which_format(
    tilewire: Tilewire, photo: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "result.webp"
    assert tilewire("upscale", photo, "-o", target, *FAST).exit_code == 0
    assert shape(target) == ("WEBP", (48, 32))


def test_an_output_folder_that_is_there_is_used(tilewire: Tilewire, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.d"
    out.mkdir()
    assert tilewire("upscale", photo, "-o", out, *FAST).exit_code == 0
    assert shape(out / "photo-2x.jpg") == ("JPEG", (48, 32))


@pytest.mark.parametrize(
    ("asked", "suffix", "image_format"),
    [("PNG", "png", "PNG"), ("webp", "webp", "WEBP"), ("jpeg", "jpg", "JPEG")],
)
def test_a_format_may_be_asked_for(
    tilewire: Tilewire, photo: Path, asked: str, suffix: str, image_format: str
) -> None:
    assert tilewire("upscale", photo, "--format", asked, *FAST).exit_code == 0
    assert shape(photo.with_name(f"photo-2x.{suffix}")) == (image_format, (48, 32))


def test_what_cannot_be_written_again_becomes_png(tilewire: Tilewire, folder: Path) -> None:
    save(folder / "old.bmp", make_image(image_format="BMP"))
    assert tilewire("upscale", folder, *FAST).exit_code == 0
    assert shape(folder / "old-2x.png") == ("PNG", (48, 32))


def test_quality_is_passed_on(tilewire: Tilewire, folder: Path) -> None:
    source = save(folder / "a.png", make_image(60, 60))
    sizes = []
    for quality in (30, 99):
        target = folder / f"{quality}.jpg"
        assert tilewire("upscale", source, "-o", target, "--quality", quality, *FAST).exit_code == 0
        sizes.append(target.stat().st_size)
    assert sizes[0] < sizes[1]


def test_metadata_is_kept_when_asked_for(tilewire: Tilewire, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    source = save(folder / "a.jpg", make_image(image_format="JPEG", exif=exif))
    for flags, kept in (((), None), (("--keep-metadata",), "Camera")):
        assert tilewire("upscale", source, *FAST, "--overwrite", *flags).exit_code == 0
        assert Image.open(folder / "a-2x.jpg").getexif().get(0x010F) == kept


def test_what_is_not_an_image_is_told_and_the_others_are_done(tilewire: Tilewire, folder: Path) -> None:
    bad = save(folder / "bad.png", b"no image at all")
    good = [save(folder / name, make_image()) for name in ("a.png", "z.png")]
    result = tilewire("upscale", good[0], bad, good[1], *FAST)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.startswith(f"{bad}: ")]
    assert "mage" in result.stderr
    assert "bad" not in result.stdout
    for file in good:
        assert shape(file.with_name(f"{file.stem}-2x.png")) == ("PNG", (48, 32))


@pytest.mark.parametrize("name", ["[a].jpg", "[bold]x[ red].jpg", "spaß 日本.jpg", "-x [dim].jpg"])
def test_any_file_name_is_shown_as_it_is(tilewire: Tilewire, folder: Path, name: str) -> None:
    good = save(folder / name, make_image(image_format="JPEG"))
    bad = save(folder / f"bad {name}", b"nothing")
    result = tilewire("upscale", good, bad, *FAST)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{good} → ")
    assert result.stderr.startswith(f"{bad}: ")
    missing = tilewire("upscale", folder / f"missing {name}")
    assert missing.stderr == f"{folder / f'missing {name}'} does not exist\n"


def test_a_missing_file_stops_before_any_work(tilewire: Tilewire, photo: Path) -> None:
    result = tilewire("upscale", photo, photo.with_name("missing.jpg"), *FAST)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "missing.jpg does not exist" in result.stderr
    assert not photo.with_name("photo-2x.jpg").exists()


def test_an_empty_folder_is_told(tilewire: Tilewire, folder: Path) -> None:
    result = tilewire("upscale", folder)
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
        (("--url", "ws://127.0.0.1:9/v1"), "key"),
    ],
)
def test_a_wrong_option_is_told_before_any_work(
    tilewire: Tilewire, photo: Path, options: tuple[str, ...], told: str
) -> None:
    result = tilewire("upscale", photo, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_a_factor_that_the_model_does_not_offer_is_told(tilewire: Tilewire, photo: Path) -> None:
    result = tilewire("upscale", photo, "--model", FAST_MODEL, "--factor", "9")
    assert result.exit_code == 1
    assert f"{photo}: {FAST_MODEL} upscales by 2, 3, 4" in result.stderr


def test_two_inputs_do_not_overwrite_each_others_results(tilewire: Tilewire, folder: Path) -> None:
    for name in ("a.gif", "a.png"):
        save(folder / name, make_image(image_format=name[2:].upper()))
    result = tilewire("upscale", folder, *FAST)
    assert result.exit_code == 2
    assert "a.gif" in result.stderr
    assert "a.png" in result.stderr
    result = tilewire("upscale", folder, "-o", folder / "one.png", *FAST)
    assert result.exit_code == 2
    assert "2 inputs" in result.stderr


def test_a_result_that_cannot_be_written_is_told(tilewire: Tilewire, photo: Path, folder: Path) -> None:
    save(folder / "file", b"")
    result = tilewire("upscale", photo, "-o", folder / "file" / "result.jpg", *FAST)
    assert result.exit_code == 1
    assert str(folder / "file") in result.stderr


def names(folder: Path) -> list[str]:
    """The files in a folder and below."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_a_folder_keeps_its_structure(tilewire: Tilewire, folder: Path, tmp_path: Path) -> None:
    for name in ("a.png", "trip/b.png", "trip/day 1/c.png", ".hidden/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder / name, make_image())
    out = tmp_path / "out"
    assert tilewire("upscale", folder, "-o", out, *FAST).exit_code == 0
    assert names(out) == ["a-2x.png", "trip/b-2x.png", "trip/day 1/c-2x.png"]


def test_a_pattern_keeps_the_structure_too(tilewire: Tilewire, folder: Path, tmp_path: Path) -> None:
    for name in ("a.png", "trip/b.png", "trip/c.jpg", "trip/d.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        save(folder / name, make_image())
    for pattern, expected in (
        ("**/*.png", ["a-2x.png", "trip/b-2x.png"]),
        ("*/*", ["b-2x.png", "c-2x.jpg"]),
    ):
        out = tmp_path / str(len(expected)) / pattern[:1].replace("*", "x") / pattern[1:2].replace("/", "y")
        assert tilewire("upscale", folder / pattern, "-o", out, *FAST).exit_code == 0
        assert [Path(name).name for name in names(out)] == [Path(name).name for name in expected]


def test_what_is_done_is_skipped_until_the_input_changes(tilewire: Tilewire, photo: Path) -> None:
    target = photo.with_name("photo-2x.jpg")
    assert tilewire("upscale", photo, *FAST).exit_code == 0
    first = target.stat().st_mtime_ns
    again = tilewire("upscale", photo, *FAST)
    assert (again.exit_code, again.stdout) == (0, "1 done before\n")
    assert target.stat().st_mtime_ns == first
    os.utime(photo, ns=(first + 1, first + 1))
    assert tilewire("upscale", photo, *FAST).exit_code == 0
    second = target.stat().st_mtime_ns
    assert second != first
    assert tilewire("upscale", photo, "--overwrite", *FAST).exit_code == 0
    assert target.stat().st_mtime_ns != second


@pytest.mark.parametrize(
    ("output", "more"),
    [
        (None, ("--overwrite",)),
        (".", ()),
        ("larger", ("--factor", "3")),
        ("larger/still", ("--overwrite",)),
        ("larger/still", ("--factor", "3")),
    ],
)
def test_results_are_never_upscaled_again(
    tilewire: Tilewire, folder: Path, output: str | None, more: tuple[str, ...]
) -> None:
    for name in ("a.png", "trip/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        save(folder / name, make_image())
    where = () if output is None else ("-o", folder / output)
    assert tilewire("upscale", folder, *where, *FAST).exit_code == 0
    first = names(folder)
    assert len(first) == 4
    assert tilewire("upscale", folder, *where, *FAST, *more).exit_code == 0
    assert tilewire("upscale", folder, *FAST, *more).exit_code == 0, "now beside the inputs"
    assert not [name for name in names(folder) if re.search(r"x-\dx", name)]


def test_results_that_the_shell_names_are_left_out(tilewire: Tilewire, photo: Path) -> None:
    assert tilewire("upscale", photo, *FAST).exit_code == 0
    result = tilewire("upscale", *sorted(photo.parent.glob("*.jpg")), "--model", FAST_MODEL, "--factor", "3")
    assert result.exit_code == 0
    assert result.stdout.endswith("; 1 left out as earlier results\n")
    assert names(photo.parent) == ["photo-2x.jpg", "photo-3x.jpg", "photo.jpg"]


def test_a_file_that_is_named_alone_is_upscaled_whatever_its_name(tilewire: Tilewire, folder: Path) -> None:
    save(folder / "a.png", make_image())
    save(folder / "a-2x.png", make_image())
    assert tilewire("upscale", folder / "a-2x.png", *FAST).exit_code == 0
    assert "a-2x-2x.png" in names(folder)


def test_no_input_is_overwritten(tilewire: Tilewire, photo: Path) -> None:
    before = photo.read_bytes()
    result = tilewire("upscale", photo, "-o", photo, *FAST)
    assert (result.exit_code, result.stderr) == (2, f"{photo} is an input and would be overwritten\n")
    assert photo.read_bytes() == before


def test_no_half_file_is_left(tilewire: Tilewire, folder: Path) -> None:
    save(folder / "a.png", make_image())
    (folder / "a-2x.png").mkdir()
    assert tilewire("upscale", folder / "a.png", *FAST).exit_code == 1
    assert names(folder) == ["a.png"]


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
        text=True,
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
    assert names(folder) == sorted(f"{n}{end}.png" for n in range(4) for end in ("", "-upscaled"))


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


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:9/v1", "nonsense", "", "ws://"])
def test_an_address_of_the_wrong_form_is_told(tilewire: Tilewire, photo: Path, url: str) -> None:
    result = tilewire("upscale", photo, "--url", url, "--key", KEY)
    assert result.exit_code == 1
    assert "ws://host:port/v1" in result.stderr


def test_keys_are_created_listed_and_revoked(tilewire: Tilewire, tmp_path: Path) -> None:
    created = tilewire("keys", "create", "--label", "[laptop] of ada", "--account", "ada", "--credit", "2.50")
    key = created.stdout.strip()
    assert created.stdout == f"{key}\n", "nothing else, so that scripts can take it"
    shown = tilewire("keys", "list").stdout
    for told in (key[:8], "ada", "[laptop] of ada", "never"):
        assert told in shown
    assert key not in shown
    assert "revoked" not in shown
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tilewire.db'}")
    account = database.run_sync(account_named, "ada", 0.0)
    assert database.run_sync(authenticate, key, 0.0).account == account
    assert database.run_sync(ledger.statement, account).available == 2_500_000_000
    identity = shown.splitlines()[1].split()[0]
    revoked = tilewire("keys", "revoke", identity)
    assert (revoked.exit_code, revoked.stdout) == (0, f"revoked {key[:8]}… of ada\n")
    assert database.run_sync(authenticate, key, 0.0) is None
    assert "revoked" in tilewire("keys", "list").stdout
    again = tilewire("keys", "revoke", identity)
    assert (again.exit_code, again.stderr) == (2, "no valid key matches\n")
    database.close()


def test_a_key_that_is_revoked_is_not_repeated_in_errors(tilewire: Tilewire) -> None:
    result = tilewire("keys", "revoke", "tw_a-secret-that-is-not-a-key")
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_accounts_are_listed_and_credited(tilewire: Tilewire) -> None:
    tilewire("keys", "create", "--account", "[ada]", "--credit", "2.50")
    tilewire("keys", "create", "--account", "bob")
    credited = tilewire("accounts", "credit", "[ada]", "0.25")
    assert credited.stdout == "[ada] has 2.75 USD\n"
    heading, ada, bob = tilewire("accounts", "list").stdout.splitlines()
    assert heading.split() == ["account", "balance", "reserved", "charged", "created"]
    assert ada.split()[:4] == ["[ada]", "2.75", "0", "0"]
    assert bob.split()[:5] == ["bob", "no", "limit", "0", "0"]


def test_credit_for_nobody_or_of_nothing_is_refused(tilewire: Tilewire) -> None:
    for name, amount, told in (("nobody", "5", "no account 'nobody'"), ("default", "five", "AMOUNT: 'five'")):
        result = tilewire("accounts", "credit", name, amount)
        assert result.exit_code == 2
        assert told in result.stderr


def test_the_webhook_secret_of_an_account_is_printed_and_rotated(tilewire: Tilewire) -> None:
    tilewire("keys", "create", "--account", "[ada]")
    secret = tilewire("accounts", "webhook-secret", "[ada]").stdout.strip()
    assert secret.startswith("whsec_")
    assert tilewire("accounts", "webhook-secret", "[ada]").stdout.strip() == secret
    rotated = tilewire("accounts", "webhook-secret", "[ada]", "--rotate").stdout.strip()
    assert rotated.startswith("whsec_")
    assert rotated != secret
    assert tilewire("accounts", "webhook-secret", "[ada]").stdout.strip() == rotated
    unknown = tilewire("accounts", "webhook-secret", "nobody")
    assert (unknown.exit_code, unknown.stdout) == (2, "")


def test_an_audit_says_what_it_checked_or_what_is_wrong(tilewire: Tilewire, tmp_path: Path) -> None:
    tilewire("keys", "create", "--account", "ada", "--credit", "2.50")
    right = tilewire("accounts", "audit")
    assert right.exit_code == 0
    assert right.stdout.startswith("the books are right: accounts 1, ledger entries 1, charges 0")
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tilewire.db'}")
    database.run_sync(lambda connection: connection.execute(update(accounts).values(balance=1)))
    database.close()
    wrong = tilewire("accounts", "audit")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "account 'ada': balance is kept as 1" in wrong.stderr


@pytest.mark.parametrize("credit", ["much", "-1", "0", "nan", "inf", "0.00000000001", "1e400000"])
def test_a_wrong_credit_makes_no_key(tilewire: Tilewire, credit: str) -> None:
    result = tilewire("keys", "create", f"--credit={credit}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert credit in result.stderr
    assert len(tilewire("keys", "list").stdout.splitlines()) == 1


def test_models_are_listed_whole_in_80_columns(tilewire: Tilewire) -> None:
    shown = tilewire("models", "list").stdout
    assert max(map(len, shown.splitlines())) <= 80
    for model in load_catalogue():
        assert re.search(rf"^{re.escape(model.name)} ", shown, re.MULTILINE)
        assert model.air in shown
        assert model.title in shown
        assert str(model.price_per_megapixel) in shown
    assert "…" not in shown


def test_models_can_be_built_ahead(tilewire: Tilewire, tmp_path: Path) -> None:
    result = tilewire("models", "build", FAST_MODEL, TILEWIRE_MODEL_DIRECTORY=str(tmp_path / "models"))
    assert result.exit_code == 0
    assert FAST_MODEL in result.stdout
    assert list((tmp_path / "models").rglob("*.onnx"))


def test_building_an_unknown_model_is_told(tilewire: Tilewire) -> None:
    result = tilewire("models", "build", "nonsense")
    assert result.exit_code == 2
    assert "'nonsense'" in result.stderr


def test_config_tells_every_setting_and_its_place(tilewire: Tilewire, tmp_path: Path) -> None:
    file = tmp_path / "tilewire.toml"
    file.write_text('port = 9001\nprices = {"realesrgan-x4plus" = 0.0013}\nmodels = ["a", "b"]')
    secrets = {"TILEWIRE_API_KEY": "tw_hidden", "TILEWIRE_DATABASE_URL": "postgresql://me:secret@db/x"}
    shown = tilewire("config", file, **secrets).stdout
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in shown.splitlines()}
    assert lines["port"] == f"9001 ({file})"
    assert lines["host"] == "127.0.0.1 (default)"
    assert lines["prices"] == f"realesrgan-x4plus = 0.0013 ({file})"
    assert lines["models"] == f"a, b ({file})"
    assert lines["api_key"] == "(hidden) (environment)"
    assert lines["database_url"] == "postgresql://me:***@db/x (environment)"
    assert lines["public_url"] == "- (default)"


@pytest.mark.parametrize(
    "command", [("config",), ("serve",), ("upscale", "x.png"), ("keys", "list"), ("models", "build")]
)
def test_a_wrong_setting_stops_every_command_with_one_line(
    tilewire: Tilewire, command: tuple[str, ...]
) -> None:
    result = tilewire(*command, TILEWIRE_PORT="many")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "port: Expected `int`, got `str` (environment)\n"


def test_help_is_shown_for_every_command(tilewire: Tilewire) -> None:
    listed = tilewire("-h").stdout.partition("Commands:\n")[2].splitlines()
    assert "..." not in "".join(listed), "each is explained whole in 80 columns"
    names = [line.split()[0] for line in listed]
    assert {"serve", "upscale", "models", "keys", "accounts", "bench", "top", "config"} <= set(names)
    for command in [*([name] for name in names), ["keys", "create"]]:
        shown = tilewire(*command, "-h").stdout
        assert "Usage" in shown
        assert max(map(len, shown.splitlines())) <= 80


def test_help_and_version_import_no_command() -> None:
    program = """
import sys
from typer.testing import CliRunner
from server.cli import app
print(*(CliRunner().invoke(app, [flag]).exit_code for flag in ("--help", "--version")))
heavy = ("server.commands", "engines", "numpy", "sqlalchemy")
print([name for name in sys.modules if name.startswith(heavy)])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert ran.stdout == "0 0\n[]\n"


def test_the_version_is_printed(tilewire: Tilewire) -> None:
    assert tilewire("--version").stdout == f"{VERSION}\n"


Fails = Callable[..., str]


@pytest.fixture
def serve_fails(tmp_path: Path, model_directory: Path) -> Fails:
    """Runs `tilewire serve`, which is to fail; what it says last."""

    def run(*arguments: str, **more: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "server", "serve", *arguments],
            env=environment(tmp_path / "data", model_directory, **more),
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
        return ended.stderr.splitlines()[-1]

    return run


def test_a_port_that_is_taken_is_told(serve_fails: Fails) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = serve_fails("--port", port)
    assert told == f"cannot listen on 127.0.0.1, port {port}: Address already in use"


def test_a_model_to_be_loaded_that_is_unknown_is_told(serve_fails: Fails) -> None:
    assert "'nonsense'" in serve_fails("--port", "0", "--models", "nonsense")


def test_a_data_directory_that_cannot_be_is_told(serve_fails: Fails, tmp_path: Path) -> None:
    file = save(tmp_path / "file", b"")
    assert str(file) in serve_fails("--port", "0", "--data", str(file))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TILEWIRE_DATABASE_URL", "nonsense", "SQLAlchemy URL"),
        ("TILEWIRE_DATABASE_URL", "sqlite:////no/such/directory/x.db", "unable to open"),
        ("TILEWIRE_STORAGE_URL", "nonsense://x", "nonsense://x"),
    ],
)
def test_a_database_or_store_that_cannot_be_is_told(
    serve_fails: Fails, name: str, value: str, told: str
) -> None:
    assert told in serve_fails("--port", "0", **{name: value})


async def test_serve_announces_where_it_is_and_works(tmp_path: Path, model_directory: Path) -> None:
    with serving(tmp_path, model_directory, TILEWIRE_MODELS=FAST_MODEL) as server:
        assert max(map(len, server.announced.splitlines())) <= 80
        assert "API key" not in server.announced, "one was configured"
        async with httpcore.AsyncConnectionPool() as pool:
            assert (await pool.request("GET", f"{server.url}/readyz")).status == 200
        async with connected(server) as peer:
            await peer.nothing_more()


def test_the_first_start_makes_a_key_and_shows_it_once(tmp_path: Path, model_directory: Path) -> None:
    with serving(tmp_path, model_directory, TILEWIRE_API_KEY="") as server:
        (key,) = re.findall(r"tw_[\w-]{43}", server.announced)
    with serving(tmp_path, model_directory, TILEWIRE_API_KEY="") as server:
        assert "tw_" not in server.announced
    database = Database(f"sqlite:///{tmp_path / 'tilewire.db'}")
    assert database.run_sync(authenticate, key, 0.0) is not None
    database.close()
