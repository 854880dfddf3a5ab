"""Stability's upscaling: v1 with its engines and account, v2beta and v2alpha with `stable-image/upscale`.

Differences: images may be larger than Stability allows, as far as this server's limits go; `fast` ignores a
prompt, as Stability does. `conservative` and `creative` need a diffusion upscaler that takes prompts.

Source: Stability's OpenAPI documents of v1 and v2beta.
"""

from server.http.providers.stability import v1, v2

__all__ = ["FALLBACKS", "ROUTES"]

ROUTES = [*v1.ROUTES, *v2.ROUTES]
FALLBACKS = [*v1.FALLBACKS, *v2.FALLBACKS]
