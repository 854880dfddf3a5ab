/** The pictures of this browser in a row: those to come, those under way, and the history. */

import { isPriced } from "../account/account.js";
import { byId, coalesced, imageOf, make } from "../browser/dom.js";
import { notify } from "../browser/notices.js";
import { isExpired, isUnfinished, isUsable } from "../tasks/tasks.js";
import { money, percent, plural } from "../text/format.js";
import { describe } from "../text/words.js";

/**
 * @typedef {import("../tasks/tasks.js").Task} Task
 * @typedef {import("../tasks/tasks.js").Picture} Picture
 */

/**
 * @param {import("../tasks/tasks.js").Tasks} tasks
 * @param {import("../tasks/pace.js").Pace} pace
 */
export function showStrip(tasks, pace) {
  const list = byId("strip");
  /** @type {Map<string, Entry>} */
  const entries = new Map();

  /** @param {Picture} picture The one that is looked at: the selected, else one that is under way, else the newest. */
  const shownOf = ({ tasks: all }) => all.find((task) => task === tasks.selected) ?? all.find(isUnfinished) ?? /** @type {Task} */ (all.at(-1));

  /** @type {Set<string>} Pictures that have changed. */
  const changed = new Set();

  function draw() {
    const pictures = tasks.pictures();
    /** @type {HTMLElement | null} */
    let older = null;
    for (const picture of pictures.toReversed()) {
      let entry = entries.get(picture.id);
      if (!entry) {
        entry = new Entry(picture.tasks[0], () => tasks.select(shownOf(find(picture.id)).id));
        entries.set(picture.id, entry);
        list.insertBefore(entry.element, older);
      } else if (!changed.delete(picture.id)) {
        older = entry.element;
        continue;
      }
      entry.draw(picture, shownOf(picture), pace);
      older = entry.element;
    }
    const there = new Set(pictures.map(({ id }) => id));
    for (const [id, { element }] of entries) {
      if (there.has(id)) continue;
      element.remove();
      entries.delete(id);
    }
    changed.clear();
    sum(pictures);
    mark();
  }
  const drawSoon = coalesced(draw);

  /** @param {string} id */
  const find = (id) => /** @type {Picture} */ (tasks.pictures().find((each) => each.id === id));

  /** @param {Picture[]} pictures */
  function sum(pictures) {
    const all = pictures.flatMap((picture) => picture.tasks);
    const done = all.filter((task) => task.status === "done");
    const cost = done.reduce((total, task) => total + (task.result?.cost ?? 0), 0);
    byId("sum").textContent = done.length ? plural(done.length, "result") + (isPriced() ? ` · ${money(cost)}` : "") : "";
    byId("strip-section").hidden = entries.size === 0;
    for (const id of ["download-all", "save-all"]) {
      const button = document.getElementById(id); // not every browser can save to a folder
      if (button) button.hidden = all.filter(isUsable).length < 2;
    }
    /** @type {HTMLButtonElement} */ (byId("clear")).disabled = all.every(isUnfinished);
  }

  function mark() {
    const selected = tasks.selected?.picture;
    for (const [id, entry] of entries) entry.mark(id === selected);
    const first = entries.get(selected ?? "") ?? [...entries.values()][0];
    for (const entry of entries.values()) entry.button.tabIndex = entry === first ? 0 : -1;
  }

  list.addEventListener("keydown", (event) => {
    const pictures = tasks.pictures();
    const index = pictures.findIndex(({ id }) => id === tasks.selected?.picture);
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: pictures.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      const next = pictures[Math.max(0, Math.min(pictures.length - 1, to))];
      if (next) tasks.select(shownOf(next).id);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      forget(tasks, tasks.of(tasks.selected?.picture ?? "").filter((task) => !isUnfinished(task)));
    } else return;
    draw();
    entries.get(tasks.selected?.picture ?? "")?.button.focus();
  });
  for (const event of ["change", "remove", "select"]) {
    tasks.addEventListener(event, (each) => {
      const task = /** @type {CustomEvent} */ (each).detail;
      if (task) changed.add(task.picture);
      drawSoon();
    });
  }
  byId("clear").addEventListener("click", () => {
    forget(tasks, tasks.inOrder().filter((task) => !isUnfinished(task)));
    if (!tasks.selected) /** @type {HTMLElement} */ (document.querySelector("#empty [data-choose]")).focus();
  });
  draw();
}

/** Remove tasks, which can be undone for a while. @param {import("../tasks/tasks.js").Tasks} tasks @param {Task[]} gone */
export function forget(tasks, gone) {
  if (!gone.length) return;
  const { selected } = tasks;
  tasks.remove(...gone);
  const pictures = new Set(gone.map(({ picture }) => picture)).size;
  const what = pictures > 1 ? plural(pictures, "image") : gone[0].name;
  const undo = () => {
    for (const task of gone) tasks.add({ ...task, revision: task.revision + 1 });
    if (selected && tasks.get(selected.id)) tasks.select(selected.id);
  };
  notify([`Removed ${what}.`], { action: { label: "Undo", run: undo } });
}

class Entry {
  #progress = make("span", { className: "progress-line" });
  #label = make("span", { className: "visually-hidden" });
  #badge = make("span", { className: "badge", "aria-hidden": "true" });
  #count = make("span", { className: "count", "aria-hidden": "true" });
  #picture = make("span", { className: "thumbnail", "aria-hidden": "true" });

  /** @param {Task} task @param {() => void} select */
  constructor(task, select) {
    if (task.thumbnail) this.#picture.append(imageOf(task.thumbnail, ""));
    else this.#picture.textContent = task.name.split(".").at(-1)?.slice(0, 4).toUpperCase() ?? "";
    const parts = [this.#label, this.#picture, this.#count, this.#badge, this.#progress];
    this.button = make("button", { type: "button" }, ...parts);
    this.button.addEventListener("click", select);
    this.element = make("li", { data: { picture: task.picture } }, this.button);
  }

  /** @param {Picture} picture @param {Task} task What is shown of it. @param {import("../tasks/pace.js").Pace} pace */
  draw({ tasks }, task, pace) {
    const { progress } = pace.outlook(task);
    const state = describe(task);
    const results = tasks.filter(({ status }) => status === "done").length;
    this.element.dataset.status = task.status === "done" && isExpired(task) ? "expired" : task.status;
    const moving = task.status === "processing" && task.queuePosition === null && task.resumes === null;
    this.#badge.textContent = moving ? percent(progress) : this.element.dataset.status === "done" ? "" : state;
    this.#count.textContent = results > 1 ? String(results) : "";
    this.#progress.style.transform = `scaleX(${progress})`;
    this.#label.textContent = `${task.name}, ${state}${results > 1 ? `, ${results} results` : ""}`;
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
}
