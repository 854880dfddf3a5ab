"""Other services' HTTP shapes: thin translations to the same tasks, one module each."""

from functools import partial

from server.delivery.webhooks import WebhookBody
from server.http.providers import a1111, novita, photio, scenario, stability
from server.http.providers.describe import described
from server.state.requests import Service

__all__ = ["ROUTES", "described", "webhook_bodies"]

ROUTES = [*a1111.ROUTES, *novita.ROUTES, *photio.ROUTES, *scenario.ROUTES, *stability.ROUTES]


def webhook_bodies(image_ttl: float) -> dict[Service, WebhookBody]:
    """What receivers of webhooks get, by the services that have a shape of their own for it.

    Args:
        image_ttl: seconds for which results are kept.
    """
    return {"novita": partial(novita.webhook_body, image_ttl=image_ttl)}
