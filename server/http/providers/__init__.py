"""Other services' HTTP shapes: thin translations to the same tasks, one module each."""

from server.http.providers import a1111, novita, photio, scenario, stability

__all__ = ["ROUTES"]

ROUTES = [*a1111.ROUTES, *novita.ROUTES, *photio.ROUTES, *scenario.ROUTES, *stability.ROUTES]
