/** The images of this browser in a row: those to come, those under way, and the history. */

import { byId, make } from "./dom.js";
import { money, percent, plural } from "./format.js";
import { isExpired, isUnfinished } from "./tasks.js";

/** @typedef {import("./tasks.js").Task} Task */

/** @param {import("./tasks.js").Tasks} tasks */
export function showStrip(tasks) {
  const list = byId("strip");
  /** @type {Map<string, Entry>} */
  const entries = new Map();

  /** @param {Task} task */
  function draw(task) {
    let entry = entries.get(task.id);
    if (!entry) {
      entry = new Entry(task, () => tasks.select(task.id));
      entries.set(task.id, entry);
      const older = tasks.all()[tasks.all().indexOf(task) + 1];
      list.insertBefore(entry.element, (older && entries.get(older.id)?.element) ?? null);
    }
    entry.draw(task);
    sum();
  }

  function sum() {
    const done = tasks.all().filter((task) => task.status === "done");
    const cost = done.reduce((total, task) => total + (task.result?.cost ?? 0), 0);
    byId("sum").textContent = done.length ? `${plural(done.length, "result")} · ${money(cost)}` : "";
    byId("strip-section").hidden = entries.size === 0;
    const leftovers = tasks.all().some((task) => !isUnfinished(task));
    /** @type {HTMLButtonElement} */ (byId("clear")).disabled = !leftovers;
  }

  function mark() {
    for (const [id, entry] of entries) entry.mark(id === tasks.selected?.id);
  }

  tasks.addEventListener("change", (event) => draw(/** @type {CustomEvent} */ (event).detail));
  tasks.addEventListener("remove", (event) => {
    const { id } = /** @type {CustomEvent} */ (event).detail;
    entries.get(id)?.remove();
    entries.delete(id);
    sum();
  });
  tasks.addEventListener("select", mark);
  byId("clear").addEventListener("click", () => {
    for (const task of tasks.all()) if (!isUnfinished(task)) tasks.remove(task.id);
  });
  for (const task of tasks.inOrder()) draw(task);
  sum();
  mark();
}

class Entry {
  #progress = make("span", { className: "progress-line" });
  #label = make("span", { className: "visually-hidden" });
  #badge = make("span", { className: "badge", "aria-hidden": "true" });
  #picture = make("span", { className: "thumbnail", "aria-hidden": "true" });
  /** @type {string | null} */ #url = null;

  /** @param {Task} task @param {() => void} select */
  constructor(task, select) {
    if (task.thumbnail) {
      this.#url = URL.createObjectURL(task.thumbnail);
      this.#picture.append(make("img", { src: this.#url, alt: "" }));
    } else {
      this.#picture.textContent = task.name.split(".").at(-1)?.slice(0, 4).toUpperCase() ?? "";
    }
    this.button = make("button", { type: "button" }, this.#label, this.#picture, this.#badge, this.#progress);
    this.button.addEventListener("click", select);
    this.element = make("li", { data: { task: task.id } }, this.button);
  }

  /** @param {Task} task */
  draw(task) {
    const state = describe(task);
    this.element.dataset.status = task.status === "done" && isExpired(task) ? "expired" : task.status;
    this.#badge.textContent = { done: "", processing: percent(task.progress) }[/** @type {string} */ (task.status)] ?? state;
    this.#progress.style.transform = `scaleX(${task.progress})`;
    this.#label.textContent = `${task.name}, ${state}`;
    this.button.title = task.name;
  }

  /** @param {boolean} selected */
  mark(selected) {
    if (!selected) this.button.removeAttribute("aria-current");
    else if (!this.button.hasAttribute("aria-current")) {
      this.button.setAttribute("aria-current", "true");
      this.element.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  remove() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.element.remove();
  }
}

/** How a task stands, in a word or two. @param {Task} task */
export function describe(task) {
  if (task.status === "done") return isExpired(task) ? "Expired" : "Done";
  const words = {
    ready: "Ready",
    waiting: "Waiting",
    uploading: "Uploading",
    processing: "Upscaling",
    failed: "Failed",
    cancelled: "Cancelled",
  };
  return words[task.status];
}
