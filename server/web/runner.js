/**
 * Sees tasks through: uploads the image, sends the task, takes its news.
 *
 * A taskUUID is an idempotency key. So after any interruption, of the connection, the server or the page,
 * every unfinished task is simply sent again: the server answers with what became of it.
 */

import { ConnectionLost, Refused } from "./connection.js";
import { isUnfinished } from "./tasks.js";
import { newUUID } from "./uuid.js";

/**
 * @typedef {import("./connection.js").Item} Item
 * @typedef {import("./connection.js").ErrorItem} ErrorItem
 * @typedef {import("./tasks.js").Task} Task
 * @typedef {import("./tasks.js").Settings} Settings
 *
 * @typedef {object} Tile A finished region, in pixels of the result.
 * @property {number} x
 * @property {number} y
 * @property {number} width
 * @property {number} height
 * @property {number} imageWidth Of the whole result.
 * @property {number} imageHeight
 * @property {Uint8Array} image Encoded.
 * @property {string} mediaType
 */

/** Events: `tile` ({id, tile}), `finish` (a Task that was done, failed or cancelled just now). */
export class Runner extends EventTarget {
  #uploading = false;
  /** @type {Set<string>} */ #cancelling = new Set();
  /** @type {Map<string, Tile[]>} */ #tiles = new Map();

  /**
   * @param {import("./connection.js").Connection} connection
   * @param {import("./tasks.js").Tasks} tasks
   */
  constructor(connection, tasks) {
    super();
    this.connection = connection;
    this.tasks = tasks;
    connection.addEventListener("online", () => this.resume());
    connection.addEventListener("item", (event) => this.#take(/** @type {CustomEvent} */ (event).detail));
    connection.addEventListener("error", (event) => this.#fail(/** @type {CustomEvent} */ (event).detail));
    // Another tab that resumed the same tasks has taken their news over, and may be closed by now.
    document.addEventListener("visibilitychange", () => document.hidden || this.resume());
  }

  /** Start a task that is ready. @param {Task} task @param {Settings} settings */
  start(task, settings) {
    this.tasks.update(task.id, { settings, status: "waiting", progress: 0, error: null });
    this.#go(task);
  }

  /** The same work again, as a new task. @param {Task} task */
  retry(task) {
    const again = { ...task, id: newUUID(), created: Date.now(), error: null, result: null, progress: 0 };
    this.tasks.add({ ...again, status: "waiting" });
    if (this.tasks.selected === task) this.tasks.select(again.id);
    this.tasks.remove(task.id);
    this.resume();
  }

  /** @param {Task} task */
  async cancel(task) {
    if (task.status !== "processing") {
      this.#finish(task, { status: "cancelled" });
      return;
    }
    this.#cancelling.add(task.id);
    try {
      await this.connection.request({ taskType: "cancel", targetTaskUUID: task.id });
    } catch (error) {
      if (error instanceof ConnectionLost) return; // asked again when it is back
      if (!(error instanceof Refused)) throw error;
      this.#cancelling.delete(task.id);
      this.#go(task); // it has ended by itself; hear how
    }
  }

  /** Send all unfinished tasks, again. */
  resume() {
    for (const task of this.tasks.inOrder()) if (isUnfinished(task)) this.#go(task);
  }

  /** What has arrived of a task that is under way. @param {Task} task */
  tilesOf(task) {
    return this.#tiles.get(task.id) ?? [];
  }

  /** @param {Task} task */
  #go(task) {
    if (!this.connection.online) return;
    if (this.#cancelling.has(task.id)) this.cancel(task);
    else if (task.input !== null) this.#send(task);
    else if (!this.#uploading) this.#upload(task);
  }

  /** One upload at a time, so that the socket stays free for the rest. @param {Task} task */
  async #upload(task) {
    if (task.file === null) {
      this.#finish(task, { status: "failed", error: error("The image is no longer kept in this browser.") });
      return;
    }
    this.#uploading = true;
    this.tasks.update(task.id, { status: "uploading", progress: 0 });
    const size = task.file.size;
    const watch = setInterval(() => {
      this.tasks.update(task.id, { progress: Math.max(0, 1 - this.connection.unsent / size) });
    }, 200);
    try {
      const image = new Uint8Array(await task.file.arrayBuffer());
      const { imageUUID } = await this.connection.request({ taskType: "imageUpload", image });
      this.tasks.update(task.id, { input: imageUUID });
      if (isUnfinished(task)) this.#send(task);
    } catch (failure) {
      if (failure instanceof Refused) this.#finish(task, { status: "failed", error: failure.item });
      else if (failure instanceof ConnectionLost) this.tasks.update(task.id, { status: "waiting" });
      else this.#finish(task, { status: "failed", error: error("The file cannot be read any more.") });
    } finally {
      clearInterval(watch);
      this.#uploading = false;
    }
    const next = this.tasks.inOrder().find((each) => isUnfinished(each) && each.input === null);
    if (next) this.#go(next);
  }

  /** @param {Task} task */
  #send(task) {
    if (task.status !== "processing") this.tasks.update(task.id, { status: "processing", progress: 0 });
    this.connection.send(upscaleOf(task));
  }

  /** @param {Item} item */
  #take(item) {
    const task = this.tasks.get(item.taskUUID);
    if (!task || !isUnfinished(task)) return;
    if (item.status === "processing") {
      this.tasks.update(task.id, { progress: item.progress });
      if (item.tile) this.#keepTile(task, item.tile);
    } else if (item.imageURL) {
      this.#succeed(task, item);
    }
  }

  /** @param {Task} task @param {Tile} tile */
  #keepTile(task, tile) {
    const tiles = this.tilesOf(task);
    tiles.push(tile);
    this.#tiles.set(task.id, tiles);
    this.dispatchEvent(new CustomEvent("tile", { detail: { id: task.id, tile } }));
  }

  /** @param {Task} task @param {Item} item */
  #succeed(task, item) {
    const { imageURL: url, cost = null, warnings = [] } = item;
    const name = new URL(url).pathname.split("/").at(-1) ?? "";
    const result = { url, name, cost, warnings, expires: null };
    this.#finish(task, { status: "done", progress: 1, result });
    this.#noteExpiry(task, result);
  }

  /** @param {Task} task @param {NonNullable<Task["result"]>} result */
  async #noteExpiry(task, result) {
    const response = await fetch(`images/${result.name}`, { method: "HEAD" }).catch(() => null);
    const age = response?.headers.get("cache-control")?.match(/max-age=(\d+)/);
    if (age) this.tasks.update(task.id, { result: { ...result, expires: Date.now() + Number(age[1]) * 1000 } });
  }

  /** @param {ErrorItem} item */
  #fail(item) {
    const task = this.tasks.get(item.taskUUID ?? "");
    if (!task || !isUnfinished(task)) return;
    if (item.retryAfter) {
      this.tasks.update(task.id, { status: "waiting" });
      setTimeout(() => isUnfinished(task) && this.#go(task), item.retryAfter * 1000);
    } else if (item.code === "imageNotFound" && task.file !== null) {
      this.tasks.update(task.id, { input: null, status: "waiting" }); // an earlier upload has expired
      this.retry(task);
    } else {
      this.#finish(task, { status: item.code === "taskCancelled" ? "cancelled" : "failed", error: item });
    }
  }

  /** @param {Task} task @param {Partial<Task>} outcome */
  #finish(task, outcome) {
    this.tasks.update(task.id, outcome);
    this.#tiles.delete(task.id);
    this.#cancelling.delete(task.id);
    this.dispatchEvent(new CustomEvent("finish", { detail: task }));
  }
}

/** The task as it is sent; the same each time. @param {Task} task @returns {Item} */
function upscaleOf(task) {
  const { settings } = task;
  if (settings === null) throw new Error("the task was not started");
  const parameters = Object.keys(settings.parameters).length ? settings.parameters : undefined;
  return {
    taskType: "upscale",
    taskUUID: task.id,
    inputs: { image: task.input },
    model: settings.model,
    upscaleFactor: settings.factor ?? undefined,
    targetMegapixels: settings.targetMegapixels ?? undefined,
    outputFormat: settings.format,
    outputQuality: settings.quality,
    settings: parameters,
    includeCost: true,
    includeProgress: true,
    includeTiles: true,
  };
}

/** @param {string} message @returns {ErrorItem} */
function error(message) {
  return { code: "page", message };
}
