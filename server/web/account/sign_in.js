/**
 * The key: asked for once, kept in this browser. A link may bring it in its fragment, `#key=…`, which browsers send to
 * no server; it is taken out of the address at once. With `&stay` it is used only if no other is valid.
 */

import { byId } from "../browser/dom.js";
import { forget, read, write } from "../browser/storage.js";

const STORED = "tilewire.key";
const EXPIRED = "Your sign-in has expired. Enter an API key, or run “tilewire open” again.";

/**
 * @param {import("../client/connection.js").Connection} connection
 * @param {(signedIn: boolean) => void} show Show the workspace, or the card that asks for the key.
 * @param {() => boolean} leave Forget what belongs to the account; false if the user would rather not.
 */
export function signIn(connection, show, leave) {
  const form = /** @type {HTMLFormElement} */ (byId("sign-in-form"));
  const field = /** @type {HTMLInputElement} */ (byId("key"));
  const button = /** @type {HTMLButtonElement} */ (byId("sign-in-button"));
  let entered = "";
  /** @type {string | null} A key that a link brought, for when the kept one is over. */
  let spare = null;

  /** @param {string} message */
  function complain(message) {
    byId("key-error").textContent = message;
    byId("key-error").hidden = !message;
    field.setAttribute("aria-invalid", String(Boolean(message)));
  }

  /** @param {boolean} trying */
  function wait(trying) {
    button.disabled = trying;
    button.textContent = trying ? "Signing in…" : "Sign in";
  }

  /** @param {string} key @param {string} [previous] A token whose place it takes. */
  function enter(key, previous) {
    entered = key;
    complain("");
    wait(true);
    connection.open(entered, previous);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const key = field.value.trim();
    if (key) enter(key);
    else complain("Enter your API key.");
  });
  field.addEventListener("input", () => complain(""));

  connection.addEventListener("online", () => {
    if (entered) write(STORED, entered);
    entered = field.value = "";
    wait(false);
    complain("");
    show(true);
  });
  connection.addEventListener("offline", (event) => {
    const busy = /** @type {CustomEvent} */ (event).detail !== null;
    if (entered) complain(busy ? "The server is busy. Trying again…" : "The server cannot be reached. Trying again…");
  });
  connection.addEventListener("refused", (event) => {
    const { item } = /** @type {CustomEvent} */ (event).detail;
    const wrong = item.code === "invalidApiKey";
    const expired = item.code === "tokenExpiredApiKey";
    const kept = read(STORED);
    if ((wrong || expired) && !entered && kept !== null) {
      const key = spare;
      spare = null;
      if (key !== null) return enter(key, kept); // only the server knows whether both are of one account
      forget(STORED);
    }
    const brought = item.code === "invalidPreviousApiKey" ? entered : "";
    entered = "";
    wait(false);
    show(false);
    if (brought && mayMove()) {
      forget(STORED);
      return enter(brought);
    }
    complain(wrong ? "This key is not valid. Check it for missing characters." : expired ? EXPIRED : item.message);
    field.select();
    field.focus();
  });

  function signOut() {
    connection.close();
    show(false);
    field.focus();
  }
  byId("sign-out").addEventListener("click", () => {
    if (!leave()) return;
    forget(STORED);
    signOut();
  });
  addEventListener("storage", (event) => {
    if (event.key === STORED && event.newValue === null) signOut(); // in another tab
  });

  const mayMove = () => confirm("This link signs in with another key. Use it?") && leave();

  /** Follow a link that signs in. Nobody is moved to another account unasked: who made the link would see the images. */
  function follow() {
    const { key: brought, stays } = keyOfAddress();
    const kept = read(STORED);
    if (brought === null || brought === kept) return false;
    if (kept !== null && stays) {
      spare = brought;
      return false;
    }
    if (kept !== null && !mayMove()) return false;
    show(false);
    enter(brought);
    return true;
  }
  addEventListener("hashchange", follow);

  if (follow()) return;
  const kept = read(STORED);
  show(kept !== null);
  if (kept !== null) connection.open(kept);
  else field.focus();
}

/** The key that a link brought; the address does not show it any longer. */
function keyOfAddress() {
  const brought = new URLSearchParams(location.hash.slice(1));
  const key = brought.get("key");
  if (key !== null) history.replaceState(null, "", location.pathname + location.search);
  return { key: key?.trim() || null, stays: brought.has("stay") };
}
