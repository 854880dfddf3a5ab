/** Images come in: dropped, pasted or chosen; files, several, whole folders, or the addresses of pictures. */

import { byId } from "../browser/dom.js";
import { notify } from "../browser/notices.js";
import { TilewireError } from "../client.js";
import { plural } from "../text/format.js";
import { addressesIn, fetchPicture } from "./addresses.js";
import { limits, readyTask, Unfit } from "./images.js";

/**
 * @param {import("./tasks.js").Tasks} tasks
 * @param {import("../client/connection.js").Connection} connection
 */
export function takeImages(tasks, connection) {
  const input = /** @type {HTMLInputElement} */ (byId("file"));
  for (const button of document.querySelectorAll("[data-choose]")) {
    button.addEventListener("click", () => input.click());
  }
  input.addEventListener("change", () => {
    take([...(input.files ?? [])]);
    input.value = "";
  });
  byId("sample").addEventListener("click", async () => {
    const picture = await (await fetch(byId("sample").dataset.picture ?? "")).blob();
    take([new File([picture], "sample.jpg", { type: "image/jpeg" })]);
  });

  addEventListener("paste", (event) => {
    if (event.target instanceof HTMLInputElement && event.target.type !== "range") return;
    takeFrom(event, event.clipboardData);
  });

  let own = false; // something of this page is dragged
  addEventListener("dragstart", () => (own = true));
  addEventListener("dragend", () => (own = false));
  const carries = (/** @type {DragEvent} */ { dataTransfer }) =>
    !own && dataTransfer !== null && ["Files", "text/uri-list"].some((type) => dataTransfer.types.includes(type));
  let depth = 0; // dragenter and dragleave come for each element that is crossed
  const show = (/** @type {boolean} */ over) => document.body.classList.toggle("dropping", over);
  addEventListener("dragenter", (event) => {
    if (carries(event)) show(++depth > 0);
  });
  addEventListener("dragleave", (event) => {
    if (carries(event)) show(--depth > 0);
  });
  addEventListener("dragover", (event) => {
    if (carries(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    show((depth = 0) > 0);
    takeFrom(event, event.dataTransfer);
  });

  /** @param {Event} event @param {DataTransfer | null} transfer */
  async function takeFrom(event, transfer) {
    if (!transfer || byId("workspace").hidden) return;
    const addresses = transfer.files.length ? [] : addressesIn(transfer);
    if (transfer.files.length || addresses.length) event.preventDefault();
    if (transfer.files.length) take(...(await filesOf(transfer)));
    else if (addresses.length) takeAddresses(addresses);
  }

  /** @param {string[]} addresses */
  async function takeAddresses(addresses) {
    notify([`Fetching ${plural(addresses.length, "picture")}…`], { stays: true });
    /** @type {File[]} */
    const files = [];
    const refused = [];
    for (const address of addresses) {
      try {
        files.push(await fetchPicture(connection, address));
      } catch (error) {
        refused.push(`${address.slice(0, 100)}: ${error instanceof TilewireError ? error.message : "could not be fetched"}`);
      }
    }
    byId("notices").replaceChildren();
    take(files, refused);
  }

  /** @param {File[]} files @param {string[]} [refused] What is known not to be taken. */
  async function take(files, refused = []) {
    if (byId("workspace").hidden) return;
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
    if (refused.length) notify(refused, { kind: "error" });
  }
}

/**
 * The dropped files, those of folders included; and what is to be said of those that cannot be read.
 * @param {DataTransfer} transfer @returns {Promise<[File[], string[]]>}
 */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry());
  const files = [...transfer.files]; // gone as soon as something is awaited
  if (!entries.some((entry) => entry?.isDirectory)) return [files, []];
  /** @type {string[]} */
  const unreadable = [];
  const found = await Promise.all(entries.map((entry) => (entry ? walk(entry, unreadable) : [])));
  return [found.flat(), unreadable];
}

/** @param {FileSystemEntry} entry @param {string[]} unreadable @returns {Promise<File[]>} */
async function walk(entry, unreadable) {
  if (entry.name.startsWith(".")) return [];
  try {
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
      for (const each of some) files.push(...(await walk(each, unreadable)));
    }
  } catch {
    unreadable.push(`${entry.name}: this ${entry.isFile ? "file" : "folder"} cannot be read`);
    return [];
  }
}
