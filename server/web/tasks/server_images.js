/** Images of the server, over HTTP. */

const TRIES = 5;
const SECONDS = 2; // where the server does not say

/**
 * The answer of the server, once it is not too busy for one. Rejects if it cannot be reached.
 * @param {string} name @param {RequestInit} [options] @returns {Promise<Response>}
 */
export async function fetchImage(name, options) {
  for (let left = TRIES; ; left--) {
    const response = await fetch(`images/${name}`, options);
    if ((response.status !== 429 && response.status !== 503) || left <= 1) return response;
    const seconds = Number(response.headers.get("retry-after")) || SECONDS;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

/** The name of an image in its address. @param {string} url */
export function nameOf(url) {
  return new URL(url).pathname.split("/").at(-1) ?? "";
}
