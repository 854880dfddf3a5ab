/**
 * All results at once: as one ZIP archive, straight into a file where the browser offers that, else by way of its
 * memory; or, where the browser lets a page write into a folder, each as a file of its own.
 */

import { byId, make } from "../browser/dom.js";
import { notify } from "../browser/notices.js";
import { unique } from "../tasks/file_names.js";
import { fetchImage } from "../tasks/server_images.js";
import { isUsable } from "../tasks/tasks.js";
import { blobOf, zip } from "../tasks/zip.js";
import { plural } from "../text/format.js";
import { fileName } from "../text/words.js";

const NAME = "upscaled.zip";

/** @typedef {AsyncIterable<{name: string, body: ReadableStream<Uint8Array>}>} Files */

/** @param {import("../tasks/tasks.js").Tasks} tasks */
export function offerDownloads(tasks) {
  offer("download-all", tasks, chooseFile, async (target, files) => {
    if (target === "download") save(await blobOf(zip(files)));
    else await writeAll(target, zip(files));
  });
  if ("showDirectoryPicker" in window) offer("save-all", tasks, chooseFolder, writeEach);
  else byId("save-all").remove();
}

/**
 * A button that saves all results.
 * @param {string} id @param {import("../tasks/tasks.js").Tasks} tasks
 * @param {() => Promise<any>} choose Where to; null if the user thought better of it.
 * @param {(target: any, files: Files) => Promise<void>} write
 */
function offer(id, tasks, choose, write) {
  const button = /** @type {HTMLButtonElement} */ (byId(id));
  button.addEventListener("click", async () => {
    const target = await choose();
    if (target === null) return;
    const label = button.textContent;
    button.disabled = true;
    /** @type {string[]} */
    const missing = [];
    try {
      const wanted = tasks.inOrder().filter(isUsable);
      await write(target, fetched(wanted, missing, (count) => (button.textContent = `Saving ${count} of ${wanted.length}…`)));
      if (missing.length) notify(missing, { kind: "error" });
      else notify([`Saved ${plural(wanted.length, "result")}.`]);
    } catch (error) {
      notify([`The results could not be saved: ${error instanceof Error ? error.message : error}`], { kind: "error" });
    } finally {
      button.disabled = false;
      button.textContent = label;
    }
  });
}

/** @returns {Promise<any>} A file handle; `download` where the browser has none; null if the user thought better of it. */
async function chooseFile() {
  const { showSaveFilePicker } = /** @type {any} */ (window);
  if (!showSaveFilePicker) return "download";
  try {
    return await showSaveFilePicker({ suggestedName: NAME, types: [{ accept: { "application/zip": [".zip"] } }] });
  } catch (error) {
    return isSecondThought(error) ? null : "download";
  }
}

/** @returns {Promise<any>} A handle of a folder; null if the user thought better of it. */
async function chooseFolder() {
  try {
    return await /** @type {any} */ (window).showDirectoryPicker({ id: "results", mode: "readwrite" });
  } catch (error) {
    if (!isSecondThought(error)) notify([`The folder cannot be used: ${error instanceof Error ? error.message : error}`], { kind: "error" });
    return null;
  }
}

/** @param {unknown} error */
function isSecondThought(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Each as a file of its own; none that is there is overwritten. @param {any} folder @param {Files} files */
async function writeEach(folder, files) {
  const taken = new Set();
  for await (const name of folder.keys()) taken.add(name.toLowerCase());
  for await (const { name, body } of files) {
    const file = await folder.getFileHandle(unique(name, taken), { create: true });
    await body.pipeTo(await file.createWritable());
  }
}

/** @param {any} handle @param {AsyncIterable<Uint8Array>} chunks */
async function writeAll(handle, chunks) {
  const file = await handle.createWritable();
  try {
    for await (const chunk of chunks) await file.write(chunk);
  } catch (error) {
    await file.abort();
    throw error;
  }
  await file.close();
}

/**
 * @param {import("../tasks/tasks.js").Task[]} wanted
 * @param {string[]} missing What is to be said of those that could not be had.
 * @param {(count: number) => void} onNext
 */
async function* fetched(wanted, missing, onNext) {
  for (const [index, task] of wanted.entries()) {
    onNext(index + 1);
    const response = await fetchImage(task.result?.name ?? "");
    if (response.ok && response.body) yield { name: fileName(task), body: response.body };
    else missing.push(`${fileName(task)}: the server ${response.status === 404 ? "has it no longer" : "is too busy"}`);
  }
}

/** @param {Blob} blob */
function save(blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: NAME });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
