/**
 * What the page keeps in the browser: small values here, tasks in `database.js`. Where the browser forbids it, has no
 * room, or has kept something damaged, values live as long as the page, and `unkept` says so.
 */

/** @type {Map<string, string>} */
const memory = new Map();

/** Events: `unkept`, with what to say of it. */
export const storage = new EventTarget();

/** @type {string | null} */
let reason = null;

/** Why something is not kept, or null. */
export function whyUnkept() {
  return reason;
}

/** @param {string} message */
export function tellUnkept(message) {
  if (reason !== null) return;
  reason = message;
  storage.dispatchEvent(new CustomEvent("unkept", { detail: message }));
}

export const FORBIDDEN =
  "This browser does not let the page store anything: images, settings and your key are lost when you leave.";
export const FULL = "This browser has no room left: new images and results are lost when you leave the page. Download what you need.";

/** @param {string} name @returns {string | null} */
export function read(name) {
  if (memory.has(name)) return memory.get(name) ?? null;
  try {
    return localStorage.getItem(name);
  } catch {
    tellUnkept(FORBIDDEN);
    return null;
  }
}

/** @param {string} name @param {string} value */
export function write(name, value) {
  try {
    localStorage.setItem(name, value);
    memory.delete(name);
  } catch (error) {
    memory.set(name, value);
    tellUnkept(error instanceof DOMException && error.name === "QuotaExceededError" ? FULL : FORBIDDEN);
  }
}

/** @param {string} name */
export function forget(name) {
  memory.delete(name);
  try {
    localStorage.removeItem(name);
  } catch {
    tellUnkept(FORBIDDEN);
  }
}

/** A kept object; an empty one if there is none, or it is damaged. @param {string} name @returns {Record<string, any>} */
export function readObject(name) {
  try {
    const value = JSON.parse(read(name) ?? "{}");
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

/** @param {string} name @param {Record<string, any>} value */
export function writeObject(name, value) {
  write(name, JSON.stringify(value));
}
