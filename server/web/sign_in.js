/** The key: asked for once, kept in this browser, never in a URL. */

import { byId } from "./dom.js";

const STORED = "tilewire.key";

/**
 * @param {import("./connection.js").Connection} connection
 * @param {(signedIn: boolean) => void} show Show the workspace, or the card that asks for the key.
 * @param {() => boolean} leave Forget what belongs to the account; false if the user would rather not.
 */
export function signIn(connection, show, leave) {
  const form = /** @type {HTMLFormElement} */ (byId("sign-in-form"));
  const field = /** @type {HTMLInputElement} */ (byId("key"));
  const button = /** @type {HTMLButtonElement} */ (byId("sign-in-button"));
  let entered = "";

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

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    entered = field.value.trim();
    if (!entered) return complain("Enter your API key.");
    complain("");
    wait(true);
    connection.open(entered);
  });
  field.addEventListener("input", () => complain(""));

  connection.addEventListener("online", () => {
    if (entered) localStorage.setItem(STORED, entered);
    entered = field.value = "";
    wait(false);
    complain("");
    show(true);
  });
  connection.addEventListener("offline", () => {
    if (entered) complain("The server cannot be reached. Trying again…");
  });
  connection.addEventListener("refused", (event) => {
    const { item } = /** @type {CustomEvent} */ (event).detail;
    const wrong = item.code === "invalidApiKey";
    if (wrong) localStorage.removeItem(STORED);
    entered = "";
    wait(false);
    show(false);
    complain(wrong ? "This key is not valid. Check it for missing characters." : item.message);
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
    localStorage.removeItem(STORED);
    signOut();
  });
  addEventListener("storage", (event) => {
    if (event.key === STORED && event.newValue === null) signOut(); // in another tab
  });

  const key = localStorage.getItem(STORED);
  show(Boolean(key));
  if (key) connection.open(key);
  else field.focus();
}
