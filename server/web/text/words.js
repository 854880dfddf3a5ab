/** What is to be said of a task. */

import { factorOf } from "../tasks/estimate.js";
import { isExpired } from "../tasks/tasks.js";
import { formatName, ordinal, times } from "./format.js";

/** @typedef {import("../tasks/tasks.js").Task} Task */

/** How it stands, in a word or two. @param {Task} task */
export function describe(task) {
  if (task.status === "done") return isExpired(task) ? "Expired" : "Done";
  if (task.resumes !== null) return "Waiting";
  if (task.status === "processing" && task.queuePosition !== null) return `${ordinal(task.queuePosition)} in line`;
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

/** `4×` @param {Task} task */
export function factorText(task) {
  const factor = task.settings && factorOf(task, task.settings);
  return factor ? times(factor) : "";
}

/** What tells a result from others of its picture: `x4plus 4×` @param {Task} task @param {Task[]} others */
export function versionName(task, others) {
  if (!task.settings) return "Ready";
  const { modelTitle, format } = task.settings;
  const parts = [modelTitle.replace(/^Real-ESRGAN /, ""), factorText(task)];
  const twin = (/** @type {Task} */ each) =>
    each !== task && each.settings?.model === task.settings?.model && factorText(each) === factorText(task);
  if (others.some(twin)) parts.push(formatName(format));
  return parts.join(" ").trim();
}

/** `photo-4x.jpg` @param {Task} task */
export function fileName(task) {
  const stem = task.name.replace(/\.[^.]*$/, "");
  const factor = task.settings && factorOf(task, task.settings);
  const size = factor ? `${Number(factor.toPrecision(3))}x` : "large";
  return `${stem}-${size}.${(task.result?.name ?? "").split(".").at(-1)}`;
}

/** @param {string} message */
export function sentence(message) {
  return message.charAt(0).toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? "" : ".");
}
