"""Other services' HTTP shapes: thin translations to the same tasks, one module each."""

from server.http.providers import a1111, novita, photio, scenario, stability
from server.http.providers.describe import described

__all__ = ["ROUTES", "described"]

ROUTES = [*a1111.ROUTES, *novita.ROUTES, *photio.ROUTES, *scenario.ROUTES, *stability.ROUTES]
