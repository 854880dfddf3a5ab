"""The endpoints of other services: only for who has a key, within the limits, and with errors of their own.

A provider's module says how its requests become tasks and how outcomes become its answers. Whatever goes
wrong reaches the client as an error of the service that it speaks.
"""

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.http.answers import results_for
from server.http.providers.caller import Caller, FailedError
from server.http.providers.login import login_of
from server.protocol.errors import ErrorItem, NotFoundError, ServerError, TaskError
from server.protocol.trace import header_parent
from server.services import Services
from server.state.requests import Service

__all__ = ["Fail", "Fallback", "ServiceRoute"]

log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]
Fail = Callable[[ErrorItem], Response]
Handler = Callable[[Request, Caller], Awaitable[Response]]

_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class ServiceRoute(Route):
    """One endpoint of a provider, and what `/openapi.json` says of it.

    Attributes:
        summary: what it does.
        body: of a JSON request.
        form: the parts of a form: name and description.
    """

    def __init__(
        self,
        path: str,
        method: str,
        handle: Handler,
        fail: Fail,
        names: Mapping[str, str] | None = None,
        *,
        body: type[Struct] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> None:
        """Route a path to a handler.

        Args:
            path: as Starlette has it.
            method: of HTTP.
            handle: answers a request; its docstring is the summary.
            fail: an error in the provider's shape.
            names: what the provider calls the parameters of a task, by their names on the wire.
            body: see above.
            form: likewise.
        """
        self.provider = _service_of(handle)
        super().__init__(path, _endpoint(handle, fail, self.provider, names), methods=[method])
        self.operation = handle.__name__
        self.summary = inspect.cleandoc(handle.__doc__ or "").splitlines()[0]
        self.body = body
        self.form = form


class Fallback(Route):
    """Answers in a provider's shape whatever is asked for at or below a path, and is not there.

    Attributes:
        fail: an error in the provider's shape.
    """

    def __init__(self, path: str, service: Service, fail: Fail) -> None:
        """Route a path and everything below it, by whichever method.

        Args:
            path: without a slash at its end.
            service: that has endpoints there.
            fail: see above.
        """
        super().__init__(path, _endpoint(_not_there, fail, service), methods=_METHODS)
        self.path_regex = re.compile(f"{re.escape(path)}(/.*)?$")
        self.fail = fail


async def _not_there(request: Request, _caller: Caller) -> Response:
    raise NotFoundError("endpointNotFound", f"there is no {request.method} {request.url.path[:200]} here")


def _endpoint(
    handle: Handler, fail: Fail, service: Service, names: Mapping[str, str] | None = None
) -> Endpoint:
    async def answer(request: Request) -> Response:
        services: Services = request.app.state.services
        documentation = f"{request.app.state.base_url(request)}/docs/errors"
        try:
            return await _handled(request, services, handle, service)
        except FailedError as error:
            item = error.item
        except TaskError as error:
            services.telemetry.metrics.error_sent(error.code)
            log.info("request refused", extra={"path": request.url.path[:200], "code": error.code})
            item = error.item(None, None, documentation)
        except Exception:
            log.exception("%s failed", request.url.path)
            item = ServerError().item(None, None, documentation)
        response = fail(_renamed(item, names or {}))
        if isinstance(item.retry_after, int):
            response.headers["retry-after"] = str(item.retry_after)
        return response

    return answer


def _service_of(handle: Handler) -> Service:
    """The service whose module, or package, a handler is in."""
    inner = handle.__module__.removeprefix(f"{__package__}.")
    service: Service = msgspec.convert(inner.partition(".")[0], Service)
    return service


async def _handled(request: Request, services: Services, handle: Handler, service: Service) -> Response:
    login = await login_of(request, services)
    account = login.account
    services.edge.take_connection(account)
    try:
        base_url, results = request.app.state.base_url(request), results_for(request, account)
        traceparent = header_parent(request.headers.get("traceparent"))
        return await handle(request, Caller(services, login, base_url, service, results, traceparent))
    finally:
        services.edge.account_connections.give_back(account)


def _renamed(item: ErrorItem, names: Mapping[str, str]) -> ErrorItem:
    """The error about the parameter as the client knows it."""
    if not isinstance(item.parameter, str):
        return item
    name = names.get(item.parameter, item.parameter)
    message = item.message.replace(item.parameter, name)
    if name not in message:
        message = f"{name}: {message}"
    return msgspec.structs.replace(item, parameter=name, message=message)
