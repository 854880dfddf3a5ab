"""Novita's upscaling: `/v2/upscale` with `/v2/progress`; `/v3/async/upscale` and `/v3/async/image-upscaler`.

Sources: novita.ai/docs/api-reference (model-apis-upscale, model-apis-image-upscaler), and the clients
novita-client 0.7 (Python) and novita-sdk 3.1 (JavaScript).
"""

from server.http.providers.novita import v2, v3
from server.http.providers.novita.v3 import webhook_body

__all__ = ["FALLBACKS", "ROUTES", "webhook_body"]

ROUTES = [*v2.ROUTES, *v3.ROUTES]
FALLBACKS = [*v2.FALLBACKS, *v3.FALLBACKS]
