/** The results of one picture, side by side: which is looked at, and what it is compared with. */

import { byId, coalesced, make } from "../browser/dom.js";
import { isUsable } from "../tasks/tasks.js";
import { describe, versionName } from "../text/words.js";

/** @typedef {import("../tasks/tasks.js").Task} Task */

/** Events: `change`, of what is compared with. */
export class Versions extends EventTarget {
  #row = byId("versions");
  #list = byId("version-list");
  #against = /** @type {HTMLSelectElement} */ (byId("against"));
  /** @type {Map<string, string>} By picture, the task that is compared with. */ #chosen = new Map();
  #drawn = "";

  /** @param {import("../tasks/tasks.js").Tasks} tasks */
  constructor(tasks) {
    super();
    this.tasks = tasks;
    this.#against.addEventListener("change", () => {
      if (tasks.selected) this.#chosen.set(tasks.selected.picture, this.#against.value);
      this.dispatchEvent(new Event("change"));
    });
    const drawSoon = coalesced(() => this.#draw());
    for (const event of ["change", "remove", "select"]) tasks.addEventListener(event, drawSoon);
    this.#draw();
  }

  /** The result that the selected one is compared with; null for the input. @returns {Task | null} */
  get against() {
    const { selected } = this.tasks;
    const other = this.tasks.get(this.#chosen.get(selected?.picture ?? "") ?? "");
    return other && other !== selected && isUsable(other) ? other : null;
  }

  #draw() {
    const { selected } = this.tasks;
    const all = selected ? this.tasks.of(selected.picture) : [];
    const states = all.map((task) => [task.id, versionName(task, all), task.status === "done" ? "" : describe(task), isUsable(task)]);
    const key = JSON.stringify([states, selected?.id, this.against?.id]);
    if (key === this.#drawn) return;
    this.#drawn = key;
    this.#row.hidden = all.length < 2;
    const held = this.#list.contains(document.activeElement);
    this.#list.replaceChildren(...all.map((task) => make("li", {}, this.#button(task, all, task === selected))));
    if (held) /** @type {HTMLElement | null} */ (this.#list.querySelector("[aria-current]"))?.focus();
    const others = all.filter((task) => task !== selected && isUsable(task));
    byId("against-field").hidden = !(selected && isUsable(selected)) || others.length === 0;
    this.#against.replaceChildren(
      make("option", { value: "" }, "the original"),
      ...others.map((task) => make("option", { value: task.id }, versionName(task, all))),
    );
    this.#against.value = this.against?.id ?? "";
  }

  /** @param {Task} task @param {Task[]} all @param {boolean} selected */
  #button(task, all, selected) {
    const state = task.status === "done" ? "" : ` · ${describe(task)}`;
    const button = make("button", { type: "button", data: { status: task.status } }, versionName(task, all) + state);
    if (selected) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => this.tasks.select(task.id));
    return button;
  }
}
