"""The effective settings: defaults < TOML file < `TILEWIRE_*` environment < flags.

The only place that reads the environment. Everything else is handed the frozen `Settings`.
"""

import difflib
import ipaddress
import logging
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct
from platformdirs import user_cache_path, user_data_path

from engines import DeviceChoice, PrecisionChoice, RuntimeChoice
from server.outbound.addresses import Reachable
from server.protocol.text import find_control_character

__all__ = ["LogFormat", "Settings", "SettingsError", "Sourced", "load_settings"]

log = logging.getLogger(__name__)

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")
_USER = re.compile(r"unix:[0-9]+")
_RAY_ADDRESS = re.compile(r"auto|(ray://)?([^\s:/@\[\]]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")
_LISTS = ("models", "trusted_proxies", "allowed_origins", "allowed_private")

LogFormat = Literal["text", "json"]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class SettingsError(Exception):
    """A setting has a wrong name or value; the message says which and where it came from."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. Sizes in bytes, times in seconds, money in USD."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one."""
    tcp: bool = True
    """Whether to listen on `host` and `port`; false needs `uds`."""
    uds: Path | None = None
    """Also listen on this Unix socket, such as /run/tilewire/tilewire.sock; its mode is 0660."""
    uds_owner: Annotated[str, Meta(min_length=1)] | None = None
    """Name or number of the user who owns that socket; default: the one who started the server."""
    uds_group: Annotated[str, Meta(min_length=1)] | None = None
    """Name or number of the group whose members may connect to it; default: the starter's."""
    tls_certificate: Path | None = None
    """PEM file with the certificate and its chain: the server then speaks https and wss."""
    tls_key: Path | None = None
    """PEM file with the private key, if it is not in the file of the certificate."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose X-Forwarded-For and -Proto are believed; `unix:1000` for a user
    of the Unix socket, `*` for any."""
    allowed_origins: tuple[str, ...] = ("*",)
    """Origins of the web pages that may use the server, beside its own; `*` for any."""
    public_url: str | None = None
    """How clients reach the server, such as https://up.example.org; default: the address that each used."""
    data: Path = msgspec.field(default_factory=lambda: user_data_path("tilewire", appauthor=False))
    """Directory of the database and the images."""
    model_directory: Path = msgspec.field(
        default_factory=lambda: user_cache_path("tilewire", appauthor=False) / "models"
    )
    """Directory of the ONNX files, which are built on first use."""
    added_models: Path | None = None
    """Directory of the added models; default: `models` in the data directory."""
    database_url: str | None = None
    """SQLAlchemy URL; default: SQLite in the data directory."""
    sqlite_synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    """For SQLite: NORMAL survives any crash of the server, but a power cut may take the last commits; FULL
    survives that too, and waits for the disk at each commit."""
    storage_url: str | None = None
    """obstore URL of the images, such as s3://bucket/prefix; default: `images` in the data directory."""
    image_urls: Literal["server", "presigned"] = "server"
    """What `imageURL` leads to: this server, or by a presigned URL the store itself: S3, GCS or Azure."""
    api_key: Annotated[str, Meta(min_length=20)] | None = None
    """A key of the default account of 20 characters or more, valid as long as it is set; default: one is made
    on the first start."""

    keyless_account: Annotated[str, Meta(min_length=1)] | None = None
    """The account of programs on this machine that send no key by another service's API, as A1111's clients
    do; not of web pages. Default: they are refused."""

    models: tuple[str, ...] = ("realesrgan-x4plus",)
    """Models to load before the server is ready; others are loaded when they are first used."""
    device: DeviceChoice = "auto"
    """Where networks run: auto, cpu, cuda."""
    runtime: RuntimeChoice = "auto"
    """What computes. On a CPU: auto (the fastest for each model, measured at its first load), onnxruntime,
    openvino, ncnn; on a GPU: auto, tensorrt, tensorrt-rtx."""
    precision: PrecisionChoice = "auto"
    """auto (on a GPU fp16 for what stays within 45 dB; on a CPU bf16 where OpenVINO has it), fp32, fp16."""
    ray_address: str | None = None
    """A Ray cluster whose GPUs run the networks, or the CPUs of nodes that have none: `auto` for that of this
    machine, 10.0.0.1:6379, ray://10.0.0.1:10001; needs the extra `ray`. Default: this machine's devices."""
    ray_cpus: Positive | None = None
    """How many CPUs of a Ray node without GPUs are one device; default: all."""
    prices: dict[str, Decimal] = {}
    """USD per output megapixel by model name, in place of the catalogue's."""

    nsfw: Literal["unchecked", "flag", "refuse"] = "unchecked"
    """What becomes of images that may not be safe for work: unchecked unless a task asks for it, flag (each
    result says so), refuse (the task fails). The latter need `tilewire models pull open-nsfw`."""
    nsfw_threshold: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """The score, 0 to 1, from which on an image counts as unsafe."""

    max_frame_bytes: Positive = 48 * 2**20
    """Largest WebSocket message or HTTP body; a larger one closes with 1009 or gets 413."""
    max_image_bytes: Positive = 32 * 2**20
    """Largest encoded input image."""
    max_input_megapixels: Annotated[float, Meta(gt=0)] = 32
    """Largest input image."""
    max_output_megapixels: Annotated[float, Meta(gt=0)] = 128
    """Largest output image."""
    active_megapixels: Annotated[float, Meta(gt=0)] = 256
    """Input and output in memory at once, of all tasks together; the rest waits on disk."""
    decoders: Positive | None = None
    """Processes that decode input images; default: one for each processor, up to 4."""
    max_tasks_in_flight: Positive = 1000
    """Unfinished tasks of one account; more are refused."""
    max_tasks: Positive = 10_000
    """Unfinished tasks of all accounts; more are refused."""
    active_megapixels_per_account: Annotated[float, Meta(gt=0)] = 192
    """The most that one account may have of these; the rest of its tasks waits."""
    requests_per_second: Annotated[float, Meta(gt=0)] = 500
    """Tasks of one account, and HTTP requests and connections of one address."""
    request_burst: Positive = 5000
    """How many of these may come at once."""
    upload_bytes_per_hour: Positive = 256 * 2**30
    """Images that one account may send."""
    failed_authentications_per_minute: Positive = 60
    """Wrong keys from one address; more are refused. Valid keys always pass."""
    max_connections: Positive = 10_000
    """Open connections of all clients."""
    max_connections_per_address: Positive = 1000
    """Open connections of one address."""
    max_connections_per_account: Positive = 1000
    """Connections that one account has authenticated."""
    max_unauthenticated: Positive = 256
    """WebSocket connections of one address that have yet to authenticate."""
    max_unsent_bytes: Positive = 64 * 2**20
    """Replies that one connection may leave unread before it is dropped; images in one answer to a POST."""

    max_incoming_bytes: Positive | None = None
    """Messages of all clients that are coming in or worked on, a quarter of them one account's; default: an
    eighth of the memory of the machine, or of the control group."""
    max_outgoing_bytes: Positive | None = None
    """Replies of all clients that wait to be read; default: as much."""

    max_raw_bytes: Positive | None = None
    """Raw pixels that are not stored: of inputs that wait for their tasks, and as many of results; a quarter
    of them one account's; default: an eighth of the memory."""

    auth_timeout: Seconds = 10
    """How long a connection may take to authenticate, and the head of a request to arrive."""
    body_timeout: Seconds = 300
    """How long the body of a request may take to arrive."""
    idle_timeout: Seconds = 120
    """A connection that sends nothing for so long is closed."""
    send_timeout: Seconds = 30
    """A connection that takes no reply for so long is dropped."""
    acknowledge_after: Seconds = 25
    """An asynchronous task that takes longer than this is acknowledged, a quicker one only answered."""
    task_timeout: Seconds = 3600
    """A task that has not ended after this time fails."""
    decode_timeout: Seconds = 30
    """Processor time that decoding one image may take; the time in all may be three times that."""
    fetch_timeout: Seconds = 30
    """How long fetching an input from its URL may take, in all."""
    store_timeout: Seconds = 30
    """How long an image may take to be read or stored, in all; plus a second per MiB stored."""
    drain_timeout: Seconds = 30
    """How long running tasks may take to finish after SIGTERM; the rest runs after the next start."""

    image_ttl: Positive = 7 * 86400
    """How long images are kept if the task has no `ttl`."""
    max_image_ttl: Positive = 30 * 86400
    """The longest `ttl` of a task, unless `image_ttl` is longer."""
    max_stored_bytes: Positive | None = None
    """Images that are kept of one account; default: a quarter of the disk, or 1 TiB in a bucket."""
    undelivered_ttl: Positive = 86400
    """How long undelivered replies wait for their session to resume."""
    record_ttl: Positive = 30 * 86400
    """How long failed tasks, and webhooks that were delivered or given up, are remembered."""
    private_networks: bool = False
    """Whether URLs may lead to any private and loopback address."""
    allowed_private: tuple[str, ...] = ()
    """Private addresses, networks (10.1.0.0/16) and host names that URLs may nevertheless lead to."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """debug, info, warning or error."""
    log_format: LogFormat = "text"
    """text for people, json for machines: one object a line."""
    metrics: Literal["local", "open", "off"] = "local"
    """Who may see `/metrics`: this machine only, everyone, or nobody."""
    metrics_accounts: Annotated[int, Meta(ge=0, le=1000)] = 0
    """How many accounts, those with the most device time, `/metrics` names with their usage."""
    otlp_endpoint: str | None = None
    """Where traces go by OTLP over HTTP, such as http://localhost:4318/v1/traces; needs the extra `otel`."""

    def __post_init__(self) -> None:
        if (found := find_control_character(self)) is not None:
            raise ValueError(f"it holds the control character U+{ord(found[1]):04X} - at `$.{found[0]}`")
        for name, price in self.prices.items():
            if not price.is_finite() or price < 0:
                raise ValueError(f"{price} is not a price - at `$.prices.{name}`")
        try:
            _ = self.reachable
        except ValueError as error:
            raise ValueError(f"{error} - at `$.allowed_private`") from error
        self._check_unix_socket()
        self._check_cluster()
        if self.tls_key is not None and self.tls_certificate is None:
            raise ValueError("needs tls_certificate too - at `$.tls_key`")
        for proxy in self.trusted_proxies:
            if proxy != "*" and not _is_network(proxy) and not _USER.fullmatch(proxy):
                raise ValueError(
                    f"{proxy!r} is no address, network or user such as unix:1000 - at `$.trusted_proxies`"
                )
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin, such as https://shop.example - at `$.allowed_origins`"
                )

    def _check_unix_socket(self) -> None:
        if self.uds is None:
            if not self.tcp:
                raise ValueError("without it uds is needed - at `$.tcp`")
            for name in ("uds_owner", "uds_group"):
                if getattr(self, name) is not None:
                    raise ValueError(f"needs uds too - at `$.{name}`")

    def _check_cluster(self) -> None:
        if self.ray_address is not None and not _RAY_ADDRESS.fullmatch(self.ray_address):
            raise ValueError(
                f"{self.ray_address!r} is not auto, host:port or ray://host:port - at `$.ray_address`"
            )
        if self.ray_cpus is not None and self.ray_address is None:
            raise ValueError("needs ray_address too - at `$.ray_cpus`")

    @property
    def reachable(self) -> Reachable:
        """What URLs of clients may lead to."""
        return Reachable(all_private=self.private_networks, private=self.allowed_private)

    @property
    def effective_added_models(self) -> Path:
        """Directory of the models that were added."""
        return self.added_models or self.data / "models"

    @property
    def effective_database_url(self) -> str:
        """SQLAlchemy's URL of the database."""
        return self.database_url or f"sqlite:///{(self.data / 'tilewire.db').as_posix()}"


class Sourced(NamedTuple):
    """One effective setting and where it came from."""

    name: str
    value: Any
    source: str


def load_settings(
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> tuple[Settings, list[Sourced]]:
    """Merge the four layers.

    Args:
        file: a TOML file with settings at its top level.
        environment: `TILEWIRE_PORT=9000` sets `port`; lists are comma-separated; empty is not given. Names
            that are not known are warned of, as not all need be meant for us (Kubernetes sets
            TILEWIRE_SERVICE_HOST where a service has our name), unless they nearly are those of settings.
        flags: from the command line; None means not given.

    Raises:
        SettingsError: for an unknown name or a wrong value.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if file is not None:
        layers.append((str(file), _read(file)))
    layers.append(("environment", _from_environment(environment)))
    layers.append(("flag", {name: value for name, value in (flags or {}).items() if value is not None}))

    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        merged |= layer
        sources |= dict.fromkeys(layer, source)
    try:
        settings = msgspec.convert(merged, Settings, strict=False, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), sources)) from error
    return settings, [
        Sourced(name, getattr(settings, name), sources.get(name, "default"))
        for name in Settings.__struct_fields__
    ]


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"), parse_float=str)  # prices stay exact
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error


def _to_path(_: type, value: Any) -> Path:
    return Path(value).expanduser()


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {f"TILEWIRE_{name.upper()}" for name in Settings.__struct_fields__}
    for name in sorted(environment.keys() - known):
        if name.startswith("TILEWIRE_"):
            if near := _near_miss(name, known):
                raise SettingsError(f"there is no setting {name} (environment); did you mean {near}?")
            log.warning("there is no setting %s (environment)", name)
    found: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        text = environment.get(f"TILEWIRE_{name.upper()}")
        if text:
            found[name] = (
                [part.strip() for part in text.split(",") if part.strip()] if name in _LISTS else text
            )
    return found


def _explain(message: str, sources: Mapping[str, str]) -> str:
    """The message of msgspec, with the setting's name and where its value came from."""
    if unknown := re.search(r"unknown field `(.+?)`", message):
        near = _near_miss(unknown[1], Settings.__struct_fields__, alike=0.6)
        hint = f"; did you mean {near!r}?" if near else ""
        return f"there is no setting {unknown[1]!r} ({sources[unknown[1]]}){hint}"
    if at := re.search(r"^(.*) - at `\$\.(([a-z_]+).*)`$", message):
        reason = at[1]
        if (wrong := reason.removeprefix("Invalid enum value ")) != reason:
            choices = get_args(get_type_hints(Settings)[at[3]])
            reason = f"must be one of {', '.join(map(str, choices))}, not {wrong}"
        return f"{at[2]}: {reason} ({sources[at[3]]})"
    return message


def _near_miss(name: str, known: Iterable[str], alike: float = 0.85) -> str | None:
    """The known name that another one probably is a misspelling of, being as much alike, from 0 to 1."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=alike)
    return near[0] if near else None
