/**
 * Keeps the page and its files, so that it opens without a network. Nothing else passes through here: no images, no
 * tasks, no keys.
 */

const CACHE = "tilewire";
const scope = new URL(self.registration.scope);

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== scope.origin) return;
  if (request.mode === "navigate" && url.pathname === scope.pathname) event.respondWith(page(request));
  else if (url.pathname.startsWith(`${scope.pathname}web/`)) event.respondWith(file(request));
});

/** The page as the server has it now; as it was last seen if the server cannot be reached. */
async function page(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await keepPage(cache, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(scope.href);
    if (kept) return kept;
    throw error;
  }
}

/** A new version of the page replaces all of the one before. */
async function keepPage(cache, response) {
  const text = await response.clone().text();
  const kept = await cache.match(scope.href);
  if (kept && (await kept.text()) === text) return;
  for (const request of await cache.keys()) await cache.delete(request);
  await cache.put(scope.href, response);
  const files = new Set([...text.matchAll(/(?:href|src)="(web\/[^"]+)"/g)].map(([, path]) => new URL(path, scope).href));
  await cache.addAll(files);
}

/** Files have their version in the path: what is kept is right. */
async function file(request) {
  const kept = await caches.match(request);
  return kept ?? fetch(request);
}
