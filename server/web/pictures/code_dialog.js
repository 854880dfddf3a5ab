/** The dialog that shows a task as code, in tabs. */

import { byId, confirm, copy, make } from "../browser/dom.js";
import { read, write } from "../browser/storage.js";
import { snippets } from "../text/snippets.js";

const STORED = "tilewire.language";

/** @returns {(task: import("../tasks/tasks.js").Task) => void} Opens it. */
export function codeDialog() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("code"));
  const tabs = byId("code-tabs");
  const panel = byId("code-panel");
  /** @type {import("../text/snippets.js").Snippet[]} */
  let shown = [];

  byId("code-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  byId("code-copy").addEventListener("click", async () => {
    await copy(panel.textContent ?? "");
    confirm(byId("code-copy"), "Copied");
  });
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const index = shown.findIndex(({ name }) => name === read(STORED));
    choose(shown[(index + step + shown.length) % shown.length].name, true);
  });

  /** @param {string} name @param {boolean} [focus] */
  function choose(name, focus = false) {
    write(STORED, name);
    for (const tab of /** @type {Iterable<HTMLElement>} */ (tabs.children)) {
      const chosen = tab.textContent === name;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) panel.setAttribute("aria-labelledby", tab.id);
      if (chosen && focus) tab.focus();
    }
    const { code, hint } = /** @type {import("../text/snippets.js").Snippet} */ (shown.find((each) => each.name === name));
    panel.textContent = code;
    panel.scrollTop = 0;
    byId("code-hint").textContent = hint;
  }

  return (task) => {
    shown = snippets(task, new URL("v1", location.href).href);
    tabs.replaceChildren(
      ...shown.map(({ name }, index) => {
        const properties = { type: "button", role: "tab", id: `code-tab-${index}`, "aria-controls": "code-panel" };
        const tab = make("button", properties, name);
        tab.addEventListener("click", () => choose(name));
        return tab;
      }),
    );
    const last = read(STORED);
    choose(shown.some(({ name }) => name === last) && last ? last : shown[0].name);
    dialog.showModal();
  };
}
