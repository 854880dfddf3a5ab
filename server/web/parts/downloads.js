/** All results as one ZIP archive: straight into a file where the browser offers that, else by way of its memory. */

import { blobOf, zip } from "../tasks/zip.js";
import { isUsable } from "../tasks/tasks.js";
import { fetchImage } from "../tasks/server_images.js";
import { byId, make } from "./dom.js";
import { plural } from "./format.js";
import { notify } from "./notices.js";
import { fileName } from "./words.js";

const NAME = "upscaled.zip";

/** @param {import("../tasks/tasks.js").Tasks} tasks */
export function offerDownloads(tasks) {
  const button = /** @type {HTMLButtonElement} */ (byId("download-all"));
  button.addEventListener("click", async () => {
    const target = await chooseFile();
    if (target === null) return;
    const label = button.textContent;
    button.disabled = true;
    /** @type {string[]} */
    const missing = [];
    try {
      const wanted = tasks.inOrder().filter(isUsable);
      const chunks = zip(fetched(wanted, missing, (count) => (button.textContent = `Saving ${count} of ${wanted.length}…`)));
      if (target === "download") save(await blobOf(chunks));
      else await writeAll(target, chunks);
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
    return error instanceof DOMException && error.name === "AbortError" ? null : "download";
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
