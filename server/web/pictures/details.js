/** What is to be said of the selected task, and what can be done with it. */

import { isPriced } from "../account/account.js";
import { announce, byId, confirm, copy } from "../browser/dom.js";
import { resultSize } from "../tasks/estimate.js";
import { isExpired, isUnfinished, isUsable } from "../tasks/tasks.js";
import { bytes, duration, formatName, money, percent, pixels } from "../text/format.js";
import { describe, factorText, fileName, sentence } from "../text/words.js";
import { forget } from "./strip.js";

/** @typedef {import("../tasks/tasks.js").Task} Task */

const TICK = 500;

/**
 * @param {import("../tasks/tasks.js").Tasks} tasks
 * @param {import("../tasks/runner.js").Runner} runner
 * @param {import("../tasks/pace.js").Pace} pace
 * @param {(task: Task) => void} showCode
 */
export function showDetails(tasks, runner, pace, showCode) {
  const download = /** @type {HTMLAnchorElement} */ (byId("download"));
  const open = /** @type {HTMLAnchorElement} */ (byId("open"));

  /** @param {string} id @param {(task: Task) => void} action */
  const on = (id, action) =>
    byId(id).addEventListener("click", () => {
      if (tasks.selected) action(tasks.selected);
      keepFocus();
    });
  on("cancel", (task) => runner.cancel(task));
  on("retry", (task) => runner.retry(task));
  on("remove", (task) => forget(tasks, [task]));
  on("code-button", showCode);
  on("copy-link", async (task) => {
    await copy(task.result?.url ?? "");
    confirm(byId("copy-link"), "Copied");
  });

  /** A button that went took the focus with it: give it to the next. */
  function keepFocus() {
    const { activeElement } = document;
    if (activeElement instanceof HTMLElement && activeElement !== document.body && activeElement.offsetParent) return;
    const next = tasks.selected ? "#details .actions > :not([hidden])" : "#empty [data-choose]";
    /** @type {HTMLElement | null} */ (document.querySelector(next))?.focus();
  }

  function draw() {
    const task = tasks.selected;
    byId("empty").hidden = task !== null;
    byId("details").hidden = byId("stage-area").hidden = task === null;
    byId("message").hidden = task === null;
    if (!task) return;
    const usable = isUsable(task);
    byId("name").textContent = byId("name").title = task.name;
    byId("model-title").textContent = task.settings?.modelTitle ?? "";
    byId("cancel").hidden = !isUnfinished(task);
    byId("retry").hidden = task.status !== "failed" && task.status !== "cancelled";
    byId("remove").hidden = isUnfinished(task);
    byId("code-button").hidden = task.settings === null;
    for (const each of [download, open, byId("copy-link")]) each.hidden = !usable;
    if (usable && task.result) {
      open.href = download.href = `images/${task.result.name}`;
      download.download = fileName(task);
    }
    byId("no-preview").hidden = task.width !== null || usable;
    byId("view-controls").hidden = !byId("no-preview").hidden;
    drawMessage(task);
    tick();
  }

  /** What changes by itself. */
  function tick() {
    const task = tasks.selected;
    if (!task) return;
    const outlook = pace.outlook(task);
    byId("facts").textContent = facts(task, outlook).join(" · ");
    const bar = byId("progress");
    bar.hidden = !isUnfinished(task);
    const unknown = task.status === "processing" && task.queuePosition === null && outlook.progress === 0;
    bar.classList.toggle("unknown", unknown);
    if (unknown) bar.removeAttribute("aria-valuenow");
    else bar.setAttribute("aria-valuenow", String(Math.round(outlook.progress * 100)));
    bar.setAttribute("aria-label", describe(task));
    /** @type {HTMLElement} */ (bar.firstElementChild).style.transform = `scaleX(${outlook.progress})`;
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
  runner.addEventListener("finish", (event) => {
    const task = /** @type {CustomEvent} */ (event).detail;
    announce(`${task.name}: ${describe(task)}. ${task.error?.message ?? ""}`);
    queueMicrotask(keepFocusIfLost);
  });
  function keepFocusIfLost() {
    const { activeElement } = document;
    if (activeElement instanceof HTMLElement && byId("details").contains(activeElement) && !activeElement.offsetParent) keepFocus();
  }
  setInterval(() => tasks.selected && isUnfinished(tasks.selected) && tick(), TICK);
  draw();
}

/** @param {Task} task @param {{progress: number, left: number | null}} outlook @returns {string[]} */
function facts(task, { progress, left }) {
  const parts = [];
  const { width, height, settings, result } = task;
  const size = settings && resultSize(task, settings);
  if (width !== null && height !== null) {
    parts.push(pixels(width, height) + (size ? ` → ${pixels(size.width, size.height)}` : ""));
  }
  if (task.file && !settings) parts.push(bytes(task.file.size));
  if (isUnfinished(task)) return [...parts, ...whereItStands(task, progress, left)];
  if (task.status !== "done" || settings === null) return [...parts, describe(task)];
  parts.push([factorText(task), formatName(settings.format)].filter(Boolean).join(" "));
  if (result?.size) parts.push(bytes(result.size));
  if (task.started !== null && task.finished !== null) parts.push(duration((task.finished - task.started) / 1000));
  if (isPriced() && result?.cost != null) parts.push(money(result.cost));
  return parts;
}

/** @param {Task} task @param {number} progress @param {number | null} left Seconds. @returns {string[]} */
function whereItStands(task, progress, left) {
  if (task.resumes !== null) {
    return [`The server is busy. Trying again in ${duration(Math.max(1, (task.resumes - Date.now()) / 1000))}`];
  }
  const under = task.status === "uploading" || (task.status === "processing" && task.queuePosition === null);
  const parts = [describe(task) + (under && progress > 0 ? ` ${percent(progress)}` : "")];
  if (task.status === "processing" && task.started !== null) {
    parts.push(duration(Math.max(1, (Date.now() - task.started) / 1000)));
    if (left !== null && left >= 1) parts.push(`about ${duration(left)} left`);
  }
  return parts;
}

/** @param {Task} task @returns {string | null} */
function messageOf(task) {
  if (task.error && task.status === "failed") return sentence(task.error.message);
  if (task.status === "cancelled") return task.error?.cost ? sentence(task.error.message) : "Cancelled. It costs nothing.";
  if (task.status === "done" && isExpired(task)) return "The result has expired and is no longer on the server.";
  if (task.width === null) return "This browser cannot show this kind of image. The server may still upscale it.";
  return task.result?.warnings.length ? task.result.warnings.join(" ") : null;
}
