/** What is to be said of the selected task, and what can be done with it. */

import { announce, byId, confirm, copy } from "./dom.js";
import { resultSize } from "./estimate.js";
import { bytes, money, percent, pixels } from "./format.js";
import { describe } from "./strip.js";
import { isExpired, isUnfinished } from "./tasks.js";
import { newUUID } from "./uuid.js";

/** @typedef {import("./tasks.js").Task} Task */

/**
 * @param {import("./tasks.js").Tasks} tasks
 * @param {import("./runner.js").Runner} runner
 * @param {(task: Task) => void} showCode
 */
export function showDetails(tasks, runner, showCode) {
  const download = /** @type {HTMLAnchorElement} */ (byId("download"));
  const open = /** @type {HTMLAnchorElement} */ (byId("open"));

  /** @param {string} id @param {(task: Task) => void} action */
  const on = (id, action) => byId(id).addEventListener("click", () => tasks.selected && action(tasks.selected));
  on("cancel", (task) => runner.cancel(task));
  on("retry", (task) => runner.retry(task));
  on("again", (task) => again(task));
  on("remove", (task) => tasks.remove(task.id));
  on("code-button", showCode);
  on("copy-link", async (task) => {
    await copy(task.result?.url ?? "");
    confirm(byId("copy-link"), "Copied");
  });

  /** The same image, to be started with other settings. @param {Task} task */
  function again(task) {
    const fresh = { settings: null, error: null, result: null, progress: 0, status: /** @type {const} */ ("ready") };
    const copied = { ...task, ...fresh, id: newUUID(), created: Date.now() };
    tasks.add(copied);
    tasks.select(copied.id);
  }

  function draw() {
    const task = tasks.selected;
    byId("empty").hidden = task !== null;
    byId("details").hidden = byId("stage-area").hidden = task === null;
    if (!task) return;
    const usable = task.result !== null && !isExpired(task);
    byId("name").textContent = task.name;
    byId("name").title = task.name;
    byId("model-title").textContent = task.settings?.modelTitle ?? "";
    byId("facts").textContent = facts(task).join(" · ");
    byId("cancel").hidden = !isUnfinished(task);
    byId("retry").hidden = task.status !== "failed" && task.status !== "cancelled";
    byId("again").hidden = task.status !== "done" || task.file === null;
    byId("remove").hidden = isUnfinished(task);
    byId("code-button").hidden = task.settings === null;
    for (const each of [download, open, byId("copy-link")]) each.hidden = !usable;
    if (usable && task.result) {
      open.href = download.href = `images/${task.result.name}`;
      download.download = fileName(task, task.result.name);
    }
    byId("no-preview").hidden = task.width !== null || usable;
    byId("view-controls").hidden = !byId("no-preview").hidden;
    drawProgress(task);
    drawMessage(task);
  }

  /** @param {Task} task */
  function drawProgress(task) {
    const bar = byId("progress");
    bar.hidden = !isUnfinished(task);
    bar.setAttribute("aria-valuenow", String(Math.round(task.progress * 100)));
    bar.setAttribute("aria-label", describe(task));
    /** @type {HTMLElement} */ (bar.firstElementChild).style.transform = `scaleX(${task.progress})`;
  }

  /** @param {Task} task */
  function drawMessage(task) {
    const message = messageOf(task);
    byId("message").hidden = message === null;
    byId("message").dataset.kind = task.status;
    byId("message-text").textContent = message;
    const link = /** @type {HTMLAnchorElement} */ (byId("message-link"));
    link.hidden = !task.error?.documentation;
    link.href = task.error?.documentation ?? "";
  }

  tasks.addEventListener("select", draw);
  tasks.addEventListener("change", (event) => {
    if (/** @type {CustomEvent} */ (event).detail === tasks.selected) draw();
  });
  tasks.addEventListener("remove", draw);
  runner.addEventListener("finish", (event) => {
    const task = /** @type {CustomEvent} */ (event).detail;
    announce(`${task.name}: ${describe(task)}. ${task.error?.message ?? ""}`);
  });
  draw();
}

/** @param {Task} task @returns {string[]} */
function facts(task) {
  const parts = [];
  const { width, height } = task;
  const size = task.settings && resultSize(task, task.settings);
  if (width !== null && height !== null) {
    parts.push(pixels(width, height) + (size ? ` → ${pixels(size.width, size.height)}` : ""));
  }
  if (task.file && !task.settings) parts.push(bytes(task.file.size));
  if (task.status === "processing" || task.status === "uploading") {
    parts.push(`${describe(task)} ${percent(task.progress)}`);
  } else if (task.status !== "done") {
    parts.push(describe(task));
  } else if (task.result?.cost != null) {
    parts.push(money(task.result.cost));
  }
  return parts;
}

/** @param {Task} task @returns {string | null} */
function messageOf(task) {
  if (task.error && task.status === "failed") return sentence(task.error.message);
  if (task.status === "cancelled") return "Cancelled. It costs nothing.";
  if (task.status === "done" && isExpired(task)) return "The result has expired and is no longer on the server.";
  if (task.width === null) return "This browser cannot show this kind of image. The server may still upscale it.";
  return task.result?.warnings.length ? task.result.warnings.join(" ") : null;
}

/** @param {string} message */
function sentence(message) {
  return message.charAt(0).toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? "" : ".");
}

/** `photo-4x.jpg` @param {Task} task @param {string} stored */
function fileName(task, stored) {
  const stem = task.name.replace(/\.[^.]*$/, "");
  const factor = task.settings?.factor ? `${task.settings.factor}x` : "large";
  return `${stem}-${factor}.${stored.split(".").at(-1)}`;
}
