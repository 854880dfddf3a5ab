/** Images come in: dropped, pasted or chosen; files, several, or whole folders. */

import { byId, make } from "./dom.js";
import { limits, readyTask, Unfit } from "./images.js";

/** @param {import("./tasks.js").Tasks} tasks */
export function takeImages(tasks) {
  const input = /** @type {HTMLInputElement} */ (byId("file"));
  for (const button of document.querySelectorAll("[data-choose]")) {
    button.addEventListener("click", () => input.click());
  }
  input.addEventListener("change", () => {
    take([...(input.files ?? [])]);
    input.value = "";
  });

  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) event.preventDefault();
    take(files);
  });

  let depth = 0; // dragenter and dragleave come for each element that is crossed
  const show = (/** @type {boolean} */ over) => document.body.classList.toggle("dropping", over);
  addEventListener("dragenter", (event) => {
    if (carriesFiles(event)) show(++depth > 0);
  });
  addEventListener("dragleave", (event) => {
    if (carriesFiles(event)) show(--depth > 0);
  });
  addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    show((depth = 0) > 0);
    take(await filesOf(/** @type {DataTransfer} */ (event.dataTransfer)));
  });

  /** @param {File[]} files */
  async function take(files) {
    if (byId("workspace").hidden) return;
    const refused = [];
    const created = Date.now();
    let first = true;
    for (const [place, file] of files.entries()) {
      try {
        const task = await readyTask(file, limits(), { created, place });
        tasks.add(task);
        if (first) tasks.select(task.id);
        first = false;
      } catch (error) {
        if (!(error instanceof Unfit)) throw error;
        refused.push(`${file.name}: ${error.message}`);
      }
    }
    if (refused.length) notify(refused);
  }
}

/** @param {DragEvent} event */
function carriesFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

/** The dropped files, those of folders included. @param {DataTransfer} transfer @returns {Promise<File[]>} */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry());
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  const found = await Promise.all(entries.map((entry) => (entry ? walk(entry) : [])));
  return found.flat();
}

/** @param {FileSystemEntry} entry @returns {Promise<File[]>} */
async function walk(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) {
    const file = /** @type {FileSystemFileEntry} */ (entry);
    return [await new Promise((resolve, reject) => file.file(resolve, reject))];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const files = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return files;
    for (const each of some) files.push(...(await walk(each)));
  }
}

const MOST_LINES = 5;

/** Show what was not taken, until it is closed. @param {string[]} messages */
function notify(messages) {
  const lines = messages.slice(0, MOST_LINES);
  if (messages.length > MOST_LINES) lines.push(`and ${messages.length - MOST_LINES} more`);
  const close = make("button", { className: "icon-button", type: "button", "aria-label": "Close" }, "×");
  const list = make("ul", {}, ...lines.map((line) => make("li", {}, line)));
  const notice = make("div", { className: "notice" }, list, close);
  close.addEventListener("click", () => notice.remove());
  byId("notices").replaceChildren(notice);
}
