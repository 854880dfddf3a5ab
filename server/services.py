"""What the running server is made of, built from the settings in one place."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from typing import Final

import httpcore
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from engines import (
    ClusterOptions,
    Decoders,
    Device,
    RayCluster,
    Upscaler,
    find_devices,
    memory_size,
    stand_in_for,
)
from onnx_models import Catalogue, load_catalogue, one_line
from server.background import close_revoked, every, give_back_memory, keep_up, reconcile, running, sweep
from server.delivery.previews import TileStreams
from server.delivery.results import Results
from server.delivery.sessions import Sessions
from server.delivery.webhooks import WebhookBody, WebhookSender
from server.images.bucket import Bucket, open_store
from server.images.inputs import Inputs
from server.images.raw_images import RawImages
from server.images.store import ImageStore
from server.limits.disk import stored_bytes_limit
from server.limits.edge import Edge
from server.limits.memory import part_of_memory, shortage
from server.limits.shares import OutwardShares
from server.outbound.fetch import WebClient
from server.private import private_directory
from server.protocol.errors import AuthenticationError, DatabaseUnavailableError, ForbiddenError, invalid
from server.settings import Settings
from server.state.accounts import (
    DEFAULT_ACCOUNT,
    account_named,
    create_key,
    has_keys,
)
from server.state.database import Database
from server.state.logins import Login, authenticate
from server.state.requests import Service
from server.telemetry.readiness import Readiness
from server.telemetry.telemetry import Telemetry
from server.upscale.pipeline import Pipeline
from server.upscale.pricing import Prices
from server.upscale.processing import Processing
from server.upscale.runner import Runner

__all__ = ["Services", "running_services"]

log = logging.getLogger(__name__)

_SWEEP: Final = 60.0
_GIVE_BACK: Final = 20.0
_RECORD_USAGE: Final = 2.0
_LOOK: Final = 1.0
"""Seconds between two looks at what other processes did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts that requests are handled with.

    Attributes:
        destinations: what sends outcomes, by the parameter that says where.
        first_key: the API key that was made because there was none; this is the one time it is known.
    """

    settings: Settings
    edge: Edge
    database: Database
    catalogue: Catalogue
    upscaler: Upscaler
    prices: Prices
    images: ImageStore
    inputs: Inputs
    sessions: Sessions
    results: Results
    runner: Runner
    webhooks: WebhookSender
    destinations: Mapping[str, WebClient]
    readiness: Readiness
    telemetry: Telemetry
    clock: Callable[[], float]
    first_key: str | None

    async def authenticate(
        self, key: str, address: str, origin: str | None, previous: str | None = None
    ) -> Login:
        """What an API key or a token opens.

        Args:
            key: as the client sent it.
            address: of the client that sent it.
            origin: of the page that sent it; None for a program.
            previous: a token whose place this one takes.

        Raises:
            AuthenticationError: if it is wrong or revoked, or a token that has expired.
            ForbiddenError: if it is a token for other pages.
            ParameterError: if it cannot take the place of `previous`.
            RateLimitError: if too many keys from this address were wrong of late.
        """
        login = await self.login(key, origin, previous)
        if login is None:
            self.edge.take_failure(address)
            raise AuthenticationError("invalidApiKey", "the API key is not valid", "apiKey")
        return login

    async def login(self, key: str, origin: str | None, previous: str | None = None) -> Login | None:
        """What an API key or a token opens; None if it is wrong or revoked. See `authenticate`."""
        login = await self.database.run(
            authenticate, key, self.clock(), configured=self.settings.api_key, previous=previous
        )
        if login is not None and login.grant is not None:
            origins = login.grant.terms.origins
            if origins and origin not in origins:
                raise ForbiddenError(
                    "tokenOriginApiKey", f"the token is for pages of {', '.join(origins)}", "apiKey"
                )
        return login

    def time_left(self, login: Login) -> int | UnsetType:
        """Whole seconds that a token is still valid; UNSET for a key."""
        return UNSET if login.grant is None else max(0, int(login.grant.expires - self.clock()))

    def check_ttl(self, ttl: int | None) -> None:
        """See that an image is not to be kept for too long.

        Raises:
            ParameterError: if it is.
        """
        longest = max(self.settings.max_image_ttl, self.settings.image_ttl)
        if ttl is not None and ttl > longest:
            raise invalid("ttl", f"images are kept for {longest} seconds at most (max_image_ttl)", "integer")


@asynccontextmanager
async def running_services(
    settings: Settings,
    base_url: str,
    telemetry: Telemetry,
    webhook_bodies: Mapping[Service, WebhookBody] | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Services]:
    """Start everything, run again what an earlier stop left unfinished; stop and close at the end.

    Args:
        settings: the effective settings.
        base_url: what clients reach the server as, for the outcomes of tasks that are run again.
        telemetry: counts and records what happens.
        webhook_bodies: see `WebhookSender`.
        clock: the time in seconds since the epoch.

    Raises:
        EngineError: if the device, or a model that is to be loaded first, cannot be used.
        StoreError: if the image store cannot be used.
        NotInstalledError: if images are to be checked, and there is no checker.
    """
    async with AsyncExitStack() as stack:
        try:
            private_directory(settings.data)
        except OSError as error:
            raise OSError(f"data: {settings.data} cannot be used: {one_line(error)}") from error
        if (warning := shortage(settings, memory_size())) is not None:
            log.warning("%s", warning)
        catalogue = load_catalogue(settings.effective_added_models)
        if settings.nsfw != "unchecked":
            catalogue.auxiliary("safetyChecker")  # without it nothing may be served
        database = Database(settings.effective_database_url, synchronous=settings.sqlite_synchronous)
        stack.enter_context(closing(database))
        directory = settings.data / "images"
        bucket = Bucket(
            open_store(settings.storage_url, directory),
            settings.store_timeout,
            directory=directory if settings.storage_url is None else None,
        )
        stack.push_async_callback(asyncio.to_thread, bucket.close)
        images = ImageStore(
            bucket,
            database,
            clock,
            presigned=settings.image_urls == "presigned",
            limit=stored_bytes_limit(settings),
        )
        # Connections of their own for each purpose: inputs that hang hold up no webhook.
        tls = httpcore.default_ssl_context()
        for_inputs, for_uploads, for_webhooks = (
            WebClient(
                timeout=settings.fetch_timeout,
                reachable=settings.reachable,
                place=OutwardShares().place,
                tls=tls,
            )
            for _ in range(3)
        )
        for web in (for_inputs, for_uploads, for_webhooks):
            stack.push_async_callback(web.close)
        tiles = stack.enter_context(closing(TileStreams()))
        decoders = Decoders(settings.decoders, seconds=settings.decode_timeout)
        stack.push_async_callback(asyncio.to_thread, decoders.close)
        upscaler = await asyncio.to_thread(_upscaler, settings)
        stack.push_async_callback(asyncio.to_thread, upscaler.close)
        if settings.ray_address is not None:
            await asyncio.to_thread(upscaler.join, _cluster(settings, settings.ray_address))
        lock = database.server_lock()
        stack.push_async_callback(asyncio.to_thread, lock.close)

        edge = Edge(settings)
        raw_images = RawImages(part_of_memory(settings.max_raw_bytes))
        inputs = Inputs(images, raw_images, for_inputs, decoders, edge, settings)
        results = Results(images, raw_images)
        sessions = Sessions(database, results, clock)
        stack.push_async_callback(sessions.close)
        webhooks = WebhookSender(
            database=database,
            results=results,
            web=for_webhooks,
            timeout=settings.fetch_timeout,
            bodies=webhook_bodies,
            traced=settings.otlp_endpoint is not None,
            clock=clock,
        )
        prices = Prices(catalogue, settings)
        pipeline = Pipeline(
            settings=settings,
            database=database,
            prices=prices,
            processing=Processing(settings=settings, catalogue=catalogue, upscaler=upscaler, inputs=inputs),
            images=images,
            inputs=inputs,
            raw_images=raw_images,
            web=for_uploads,
            clock=clock,
        )
        runner = Runner(
            settings=settings,
            database=database,
            pipeline=pipeline,
            sessions=sessions,
            tiles=tiles,
            webhooks=webhooks,
            images=images,
            lock=lock,
            telemetry=telemetry,
            clock=clock,
        )

        await images.open()
        for name in settings.models:
            await asyncio.to_thread(upscaler.load, catalogue.get(name))
        await asyncio.to_thread(lock.hold)
        stack.push_async_callback(webhooks.stop)
        await stack.enter_async_context(
            running(
                webhooks.run(),
                every(_GIVE_BACK, "giving back memory", partial(give_back_memory, images, inputs, runner)),
                every(
                    _SWEEP,
                    "sweeping",
                    partial(sweep, images, raw_images, sessions, database, settings, clock),
                ),
                every(_RECORD_USAGE, "recording usage", partial(telemetry.usage.record, database)),
                every(_LOOK, "looking for revoked keys", partial(close_revoked, sessions, database, clock)),
                every(
                    _LOOK,
                    "keeping up with other servers",
                    partial(keep_up, lock, runner, sessions, base_url),
                ),
            )
        )
        stack.push_async_callback(_record_last_usage, telemetry, database)
        stack.push_async_callback(runner.stop)
        await reconcile(runner, base_url)
        yield Services(
            settings=settings,
            edge=edge,
            database=database,
            catalogue=catalogue,
            upscaler=upscaler,
            prices=prices,
            images=images,
            inputs=inputs,
            sessions=sessions,
            results=results,
            runner=runner,
            webhooks=webhooks,
            destinations={"webhookURL": for_webhooks, "uploadEndpoint": for_uploads},
            readiness=Readiness(upscaler, database, images),
            telemetry=telemetry,
            clock=clock,
            first_key=await database.run(_first_key, settings.api_key, clock()),
        )


def _upscaler(settings: Settings) -> Upscaler:
    """An upscaler with the devices of this machine; in reserve if it is to join a cluster."""
    devices: Sequence[Device] = ()
    stand_in: Callable[[], Device] | None
    if settings.ray_address is None:
        devices = find_devices(settings.device, settings.runtime, settings.precision)
        stand_in = stand_in_for(devices, settings.device, settings.runtime, settings.precision)
    else:

        def stand_in() -> Device:
            return find_devices(settings.device, settings.runtime, settings.precision)[0]

    return Upscaler(devices, settings.model_directory, stand_in=stand_in)


def _cluster(settings: Settings, address: str) -> RayCluster:
    return RayCluster(
        ClusterOptions(
            address=address,
            choice=settings.device,
            runtime=settings.runtime,
            precision=settings.precision,
            cpus=settings.ray_cpus,
        )
    )


async def _record_last_usage(telemetry: Telemetry, database: Database) -> None:
    try:
        await telemetry.usage.record(database)
    except (DatabaseUnavailableError, SQLAlchemyError):
        log.warning("the usage of the last seconds is not recorded")


def _first_key(connection: Connection, configured: str | None, now: float) -> str | None:
    """Make sure that there is a key; one that had to be made is returned."""
    if configured is not None or has_keys(connection):
        return None
    return create_key(connection, account_named(connection, DEFAULT_ACCOUNT, now), "first", now)
