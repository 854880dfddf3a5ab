"""Other services' HTTP shapes: thin translations to the same tasks, a module or a package each."""

from functools import partial

from server.delivery.webhooks import WebhookBody
from server.http.providers import a1111, novita, photio, scenario, stability
from server.http.providers.describe import described
from server.http.providers.routes import Fail
from server.state.requests import Service

__all__ = ["FALLBACKS", "ROUTES", "described", "fail_for", "webhook_bodies"]

ROUTES = [*a1111.ROUTES, *novita.ROUTES, *photio.ROUTES, *scenario.ROUTES, *stability.ROUTES]

FALLBACKS = [
    *a1111.FALLBACKS,
    *novita.FALLBACKS,
    *photio.FALLBACKS,
    *scenario.FALLBACKS,
    *stability.FALLBACKS,
]
"""What answers where none of the routes does."""


def fail_for(path: str) -> Fail | None:
    """What makes an error of the service whose endpoints are where `path` is; None where they are ours."""
    return next((each.fail for each in FALLBACKS if each.path_regex.match(path)), None)


def webhook_bodies(image_ttl: float) -> dict[Service, WebhookBody]:
    """What receivers of webhooks get, by the services that have a shape of their own for it.

    Args:
        image_ttl: seconds for which results are kept.
    """
    return {"novita": partial(novita.webhook_body, image_ttl=image_ttl)}
