/**
 * Sees tasks through: uploads the image, sends the task, takes its news.
 *
 * A taskUUID is an idempotency key. So after any interruption, of the connection, the server or the page,
 * every unfinished task is simply sent again: the server answers with what became of it.
 */

import { ConnectionLost, newUUID, TilewireError } from "../client.js";
import { fetchImage, nameOf } from "./server_images.js";
import { sameSettings } from "./settings.js";
import { FRESH, isUnfinished } from "./tasks.js";

/**
 * @typedef {import("../client/errors.js").Item} Item
 * @typedef {import("../client/errors.js").ErrorItem} ErrorItem
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
  /** @type {Map<string, AbortController>} Of the tasks that this page sees through. */ #runs = new Map();
  /** @type {Promise<void>} One upload at a time, so that the socket stays free for the rest. */
  #uploads = Promise.resolve();
  /** @type {Set<string>} */ #cancelling = new Set();
  /** @type {Map<string, Tile[]>} */ #tiles = new Map();

  /**
   * @param {import("../client/connection.js").Connection} connection
   * @param {import("./tasks.js").Tasks} tasks
   */
  constructor(connection, tasks) {
    super();
    this.connection = connection;
    this.tasks = tasks;
    connection.addEventListener("online", () => this.resume());
    // Another tab that resumed the same tasks has taken their news over, and may be closed by now.
    document.addEventListener("visibilitychange", () => document.hidden || this.resume());
    tasks.addEventListener("change", (event) => {
      const task = /** @type {CustomEvent} */ (event).detail;
      if (!isUnfinished(task)) this.#leave(task); // another tab may have heard how it ended
    });
    tasks.addEventListener("remove", (event) => this.#leave(/** @type {CustomEvent} */ (event).detail));
  }

  /** Start a task that is ready. @param {Task} task @param {Settings} settings */
  start(task, settings) {
    this.tasks.update(task.id, { settings, status: "waiting" });
    this.#go(task);
  }

  /**
   * Make another result of the same image. One that failed or was cancelled gives its place to it, or is tried again.
   * @param {Task} task @param {Settings} settings
   */
  again(task, settings) {
    const ended = task.status === "failed" || task.status === "cancelled";
    if (ended && sameSettings(task.settings, settings)) this.retry(task);
    else this.#anew(task, settings, ended);
  }

  /** @param {Task} task @param {Settings} settings @param {boolean} replaces */
  #anew(task, settings, replaces) {
    const { selected } = this.tasks;
    const fresh = { ...task, ...FRESH, id: newUUID(), created: Date.now(), settings, status: /** @type {const} */ ("waiting") };
    this.tasks.add(fresh);
    if (selected?.picture === task.picture) this.tasks.select(fresh.id);
    if (replaces) this.tasks.remove(task);
    this.#go(fresh);
  }

  /** The same task again: what was paid of it is not paid twice. @param {Task} task */
  retry(task) {
    const { settings, tries } = task;
    if (settings === null) return;
    const { revision: _, ...fresh } = FRESH;
    this.tasks.update(task.id, { ...fresh, settings, status: "waiting", tries: tries + 1 });
    this.#go(task);
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
      if (!(error instanceof TilewireError)) throw error;
      this.#cancelling.delete(task.id);
      this.connection.resend(task.id); // it has ended by itself; hear how
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
    if (this.#runs.has(task.id)) this.connection.resend(task.id);
    else this.#run(task);
  }

  /** @param {Task} task */
  async #run(task) {
    const run = new AbortController();
    this.#runs.set(task.id, run);
    try {
      if (task.input === null) await this.#upload(task, run.signal);
      this.#succeed(task, await this.#upscale(task, run.signal));
    } catch (failure) {
      if (run.signal.aborted) return; // it is cancelled, removed, or another tab knows its end
      if (failure instanceof ConnectionLost) this.tasks.update(task.id, { status: "waiting" });
      else if (failure instanceof TilewireError) this.#fail(task, failure.item);
      else throw failure;
    } finally {
      if (this.#runs.get(task.id) === run) this.#runs.delete(task.id);
    }
  }

  /** @param {Task} task @param {AbortSignal} signal */
  async #upload(task, signal) {
    const turn = this.#uploads.then(() => this.#uploadNow(task, signal));
    this.#uploads = turn.catch(() => {});
    await turn;
  }

  /** @param {Task} task @param {AbortSignal} signal */
  async #uploadNow(task, signal) {
    signal.throwIfAborted();
    if (task.input !== null) return; // with another task of the same picture
    if (task.file === null) throw refusal("The image is no longer stored in this browser.");
    const image = task.file; // read as it is sent: a large one would hold up the page
    await image.slice(0, 1).arrayBuffer().catch(() => {
      throw refusal("The file cannot be read any more.");
    });
    signal.throwIfAborted();
    this.tasks.update(task.id, { status: "uploading", progress: 0 });
    const watch = setInterval(() => {
      this.tasks.update(task.id, { progress: Math.max(0, 1 - this.connection.unsent / image.size) });
    }, 200);
    try {
      const { imageUUID } = await this.connection.request({ taskType: "imageUpload", image }, { signal, onWait: (until) => this.#wait(task, until) });
      for (const each of this.tasks.of(task.picture)) this.tasks.update(each.id, { input: imageUUID });
    } finally {
      clearInterval(watch);
    }
  }

  /** @param {Task} task @param {AbortSignal} signal @returns {Promise<Item>} */
  #upscale(task, signal) {
    signal.throwIfAborted();
    this.tasks.update(task.id, { status: "processing", progress: 0, started: task.started ?? Date.now() });
    const onNews = (/** @type {Item} */ item) => this.#follow(task, item);
    return this.connection.request(upscaleOf(task), { signal, onNews, onWait: (until) => this.#wait(task, until) });
  }

  /** @param {Task} task @param {number} until */
  #wait(task, until) {
    this.tasks.update(task.id, { resumes: until, started: null });
  }

  /** @param {Task} task @param {Item} item */
  #follow(task, { progress, queuePosition = null, tile }) {
    const begins = task.queuePosition !== null && queuePosition === null;
    const started = queuePosition ? null : begins || task.started === null ? Date.now() : task.started;
    if (started !== task.started) this.tasks.update(task.id, { started });
    this.tasks.update(task.id, { progress: progress / 100, queuePosition, resumes: null });
    if (!tile) return;
    this.#tiles.set(task.id, [...this.tilesOf(task), tile]);
    this.dispatchEvent(new CustomEvent("tile", { detail: { id: task.id, tile } }));
  }

  /** @param {Task} task @param {Item} item */
  #succeed(task, { imageURL: url, cost = null, warnings = [], NSFWContent: unsafe = false }) {
    const found = unsafe ? ["It may not be safe for work"] : [];
    const result = { url, name: nameOf(url), cost, warnings: [...found, ...warnings], expires: null, size: null };
    this.#finish(task, { status: "done", progress: 1, result });
    this.#look(task, result);
  }

  /** How large the result is, and how long it is kept. @param {Task} task @param {NonNullable<Task["result"]>} result */
  async #look(task, result) {
    const response = await fetchImage(result.name, { method: "HEAD" }).catch(() => null);
    if (!response?.ok) return;
    const age = Number(response.headers.get("cache-control")?.match(/max-age=(\d+)/)?.[1]);
    const expires = age > 0 ? Date.now() + age * 1000 : null;
    this.tasks.update(task.id, { result: { ...result, expires, size: Number(response.headers.get("content-length")) } });
  }

  /** @param {Task} task @param {ErrorItem} item */
  #fail(task, item) {
    if (item.code === "imageNotFound" && task.file !== null) { // an earlier upload is kept no longer
      for (const each of this.tasks.of(task.picture)) this.tasks.update(each.id, { input: null });
      if (task.settings) this.#anew(task, task.settings, true); // the image may get another UUID
    } else if (item.code === "conflictTaskUUID" && task.tries > 0 && task.settings) { // it has got one since
      this.#anew(task, task.settings, true);
    } else {
      this.#finish(task, { status: item.code === "taskCancelled" ? "cancelled" : "failed", error: item });
    }
  }

  /** @param {Task} task @param {Partial<Task>} outcome */
  #finish(task, outcome) {
    this.tasks.update(task.id, { finished: Date.now(), queuePosition: null, resumes: null, ...outcome });
    this.dispatchEvent(new CustomEvent("finish", { detail: task }));
  }

  /** Nothing more is to be done for it. @param {Task} task */
  #leave({ id }) {
    this.#runs.get(id)?.abort();
    this.#runs.delete(id);
    this.#tiles.delete(id);
    this.#cancelling.delete(id);
  }
}

/** The task as it is sent; the same each time. @param {Task} task @returns {Item} */
function upscaleOf({ id, input, settings }) {
  if (settings === null) throw new Error("the task was not started");
  const parameters = Object.keys(settings.parameters).length ? settings.parameters : undefined;
  return {
    taskType: "upscale",
    taskUUID: id,
    inputs: { image: input },
    model: settings.model,
    upscaleFactor: settings.factor ?? undefined,
    targetMegapixels: settings.targetMegapixels ?? undefined,
    width: settings.box?.width ?? undefined,
    height: settings.box?.height ?? undefined,
    resizeMode: settings.box?.mode,
    outputFormat: settings.format,
    outputQuality: settings.quality,
    keepMetadata: settings.keepMetadata || undefined,
    settings: parameters,
    ...settings.options,
    includeCost: true,
    includeProgress: true,
    includeTiles: true,
  };
}

/** @param {string} message */
function refusal(message) {
  return new TilewireError({ code: "page", message });
}
