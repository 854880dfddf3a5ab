/** Says that the connection is lost, once that is more than a hiccup. */

import { byId } from "../browser/dom.js";
import { duration } from "../text/format.js";

const HICCUP = 700;

/** @param {import("../client/connection.js").Connection} connection */
export function showBanner(connection) {
  const banner = byId("banner");
  /** @type {number | undefined} */
  let timer;
  connection.addEventListener("offline", (event) => {
    const wait = /** @type {CustomEvent} */ (event).detail;
    if (wait !== null) {
      banner.textContent = `The server is busy. Signing in again in ${duration(wait)}. Your tasks go on.`;
      return;
    }
    timer ??= setTimeout(() => {
      banner.textContent = "Connection lost. Reconnecting… Your tasks go on.";
    }, HICCUP);
  });
  const clear = () => {
    clearTimeout(timer);
    timer = undefined;
    banner.textContent = "";
  };
  connection.addEventListener("online", clear);
  connection.addEventListener("refused", clear);
  byId("sign-out").addEventListener("click", clear);
}
