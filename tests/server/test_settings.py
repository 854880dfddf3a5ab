"""Where settings come from, and what is said about wrong ones."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from server.settings import Settings, SettingsError, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tilewire.toml"


def source(
    name: str, file: Path | None, environment: dict[str, str], flags: dict[str, Any]
) -> tuple[Any, str]:
    _, sourced = load_settings(file, environment, flags)
    (found,) = [setting for setting in sourced if setting.name == name]
    return found.value, found.source


def test_flags_win_over_the_environment_over_the_file_over_defaults(file: Path) -> None:
    file.write_text("port = 1001", encoding="utf-8")
    environment, flags = {"TILEWIRE_PORT": "1002"}, {"port": 1003}
    assert source("port", None, {}, {}) == (8080, "default")
    assert source("port", file, {}, {}) == (1001, str(file))
    assert source("port", file, environment, {}) == (1002, "environment")
    assert source("port", file, environment, flags) == (1003, "flag")


def test_layers_are_merged_setting_by_setting(file: Path) -> None:
    file.write_text('host = "0.0.0.0"\nport = 1001', encoding="utf-8")
    settings, sourced = load_settings(file, {"TILEWIRE_PORT": "1002"}, {"data": Path("/data")})
    assert (settings.host, settings.port, settings.data) == ("0.0.0.0", 1002, Path("/data"))  # noqa: S104
    assert {setting.name: setting.source for setting in sourced if setting.source != "default"} == {
        "host": str(file),
        "port": "environment",
        "data": "flag",
    }


def test_every_setting_is_told_with_its_effective_value() -> None:
    settings, sourced = load_settings(None, {}, {})
    assert {setting.name: setting.value for setting in sourced} == {
        name: getattr(settings, name) for name in Settings.__struct_fields__
    }


def test_flags_and_variables_that_are_not_given_change_nothing() -> None:
    settings, sourced = load_settings(None, {"TILEWIRE_API_KEY": "", "PORT": "1"}, {"port": None})
    assert (settings.api_key, settings.port) == (None, 8080)
    assert {setting.source for setting in sourced} == {"default"}


def test_the_environment_is_read_as_the_type_of_the_setting() -> None:
    settings, _ = load_settings(
        None,
        {
            "TILEWIRE_MODELS": "one, two,",
            "TILEWIRE_PRIVATE_NETWORKS": "true",
            "TILEWIRE_ALLOWED_PRIVATE": "10.1.0.0/16, store.internal",
            "TILEWIRE_AUTH_TIMEOUT": "2.5",
            "TILEWIRE_DATA": "~/somewhere",
            "TILEWIRE_DATABASE_URL": "postgresql://db/tilewire",
        },
    )
    assert settings.models == ("one", "two")
    assert settings.private_networks is True
    assert settings.allowed_private == ("10.1.0.0/16", "store.internal")
    assert settings.auth_timeout == 2.5
    assert settings.data == Path.home() / "somewhere"
    assert settings.effective_database_url == "postgresql://db/tilewire"


def test_the_database_is_in_the_data_directory_by_default() -> None:
    settings, _ = load_settings(None, {"TILEWIRE_DATA": "/srv/tilewire"})
    assert settings.effective_database_url == "sqlite:////srv/tilewire/tilewire.db"


def test_prices_are_exact(file: Path) -> None:
    file.write_text('[prices]\na = 0.1\nb = 0.00000013\nc = 2\nd = "0.3"', encoding="utf-8")
    settings, _ = load_settings(file, {})
    assert settings.prices == {
        "a": Decimal("0.1"),
        "b": Decimal("0.00000013"),
        "c": Decimal(2),
        "d": Decimal("0.3"),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "no setting 'prot'"),
        ("[section]\nport = 1", "no setting 'section'"),
        ('port = "x"', "port: "),
        ("port = 70000", "port: .*65535"),
        ("data = 5", "data: "),
        ("auth_timeout = 0", "auth_timeout: .*0"),
        ('auth_timeout = "nan"', "auth_timeout: "),
        ('device = "abacus"', "device: .*abacus"),
        ('log_level = "loud"', "log_level: .*loud"),
        ('api_key = ""', "api_key: "),
        ('models = "one"', "models: "),
        ("models = [1]", r"models\[0\]: "),
        ('private_networks = "perhaps"', "private_networks: "),
        ('allowed_private = ["10.0.0.0/33"]', "allowed_private: .*10.0.0.0/33"),
        ("prices = 1", "prices: "),
        ("prices = {cheap = -1}", "prices.cheap: -1"),
        ("prices = {odd = nan}", "prices.odd: NaN"),
        ('prices = {odd = "x"}', "prices"),
        ("tcp = false", "tcp: without it uds is needed"),
        ('uds_group = "www-data"', "uds_group: needs uds too"),
        (
            'ray_address = "http://10.0.0.1:10001"',
            "ray_address: .* is not auto, host:port or ray://host:port",
        ),
        ('ray_address = "10.0.0.1"', "ray_address: .* is not auto"),
        ("ray_cpus = 4", "ray_cpus: needs ray_address too"),
        ('trusted_proxies = ["unix:www-data"]', "trusted_proxies: .*such as unix:1000"),
        ("port = ", "is not TOML"),
        ("port = 1\nport = 2", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_names_the_setting_and_the_file(file: Path, text: str, told: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=told) as caught:
        load_settings(file, {})
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_told(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(file, {})


def test_a_file_that_is_missing_or_a_directory_is_told(file: Path, tmp_path: Path) -> None:
    for wrong in (file, tmp_path):
        with pytest.raises(SettingsError, match=f"{wrong} cannot be read"):
            load_settings(wrong, {})


@pytest.mark.parametrize(
    ("name", "text"), [("port", "many"), ("prices", "0.1"), ("private_networks", "perhaps"), ("device", "x")]
)
def test_a_mistake_in_the_environment_names_the_setting_and_the_environment(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: .* \(environment\)$"):
        load_settings(None, {f"TILEWIRE_{name.upper()}": text})


def test_a_mistake_in_a_flag_names_the_setting_and_the_flag(file: Path) -> None:
    file.write_text('data = "/srv"\ndatabase_url = "sqlite:///x"', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^port: .* \(flag\)$"):
        load_settings(file, {"TILEWIRE_HOST": "localhost"}, {"port": -1})


def test_a_mistake_is_blamed_on_the_layer_that_wins(file: Path) -> None:
    file.write_text('port = "wrong, but overridden"', encoding="utf-8")
    assert load_settings(file, {"TILEWIRE_PORT": "1"})[0].port == 1
    with pytest.raises(SettingsError, match=r"\(environment\)"):
        load_settings(file, {"TILEWIRE_PORT": "also wrong"})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("TILEWIRE_DATABSE_URL", "TILEWIRE_DATABASE_URL"),
        ("TILEWIRE_PORTS", "TILEWIRE_PORT"),
        ("TILEWIRE_MAX_IMAGE_BYTE", "TILEWIRE_MAX_IMAGE_BYTES"),
    ],
)
def test_a_misspelt_variable_is_an_error_with_the_right_name(name: str, near: str) -> None:
    with pytest.raises(SettingsError, match=rf"no setting {name} \(environment\); did you mean {near}\?"):
        load_settings(None, {name: "1"})


def test_a_variable_that_may_be_anyones_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    others = {"TILEWIRE_SERVICE_HOST": "10.0.0.1", "TILEWIRE_PORT_8080_TCP_ADDR": "10.0.0.1", "OTHER": "1"}
    settings, _ = load_settings(None, others)
    assert settings.host == "127.0.0.1"
    assert [record.getMessage() for record in caplog.records] == [
        "there is no setting TILEWIRE_PORT_8080_TCP_ADDR (environment)",
        "there is no setting TILEWIRE_SERVICE_HOST (environment)",
    ]


def test_a_misspelt_setting_in_a_file_is_told_with_the_right_name(file: Path) -> None:
    file.write_text("devices = 'cpu'", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"'devices' .*; did you mean 'device'\?"):
        load_settings(file, {})
    file.write_text("wholly_different = 1", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"no setting 'wholly_different' \(.*\)$"):
        load_settings(file, {})
