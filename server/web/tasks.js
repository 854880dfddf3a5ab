/**
 * The tasks of this browser: those to be started, those under way and the history. They are kept in IndexedDB,
 * so that a reload loses nothing, and in step with other tabs.
 */

import { Database } from "./database.js";

/**
 * @typedef {"ready" | "waiting" | "uploading" | "processing" | "done" | "failed" | "cancelled"} Status
 * ready: not started; waiting: to be uploaded or sent; processing: accepted by the server.
 *
 * @typedef {object} Settings What the user chose.
 * @property {string} model Its AIR id.
 * @property {string} modelTitle
 * @property {number | null} factor
 * @property {number | null} targetMegapixels In place of a factor.
 * @property {"JPG" | "PNG" | "WEBP"} format
 * @property {number} quality
 * @property {Record<string, any>} parameters The model's own settings.
 *
 * @typedef {object} Task
 * @property {string} id The taskUUID; a task that is tried again is a new one.
 * @property {number} created
 * @property {number} place Among those that were added together.
 * @property {string} name Of the file.
 * @property {Blob | null} file The input; null where the browser has no room for it.
 * @property {number | null} width Of the input; null if the browser cannot read it.
 * @property {number | null} height
 * @property {Blob | null} thumbnail
 * @property {Settings | null} settings Since it was started.
 * @property {string | null} input UUID of the uploaded input.
 * @property {Status} status
 * @property {number} progress From 0 to 1, of the upload or the work.
 * @property {import("./connection.js").ErrorItem | null} error
 * @property {Result | null} result
 *
 * @typedef {object} Result
 * @property {string} url
 * @property {string} name Of the image on the server.
 * @property {number | null} cost In USD.
 * @property {string[]} warnings
 * @property {number | null} expires Milliseconds since the epoch.
 */

const MOST_FINISHED = 100;
const UNFINISHED = new Set(["waiting", "uploading", "processing"]);
const KEEP_QUIET = new Set(["progress"]);

/** @param {Task} task Whether the server has, or will have, work with it. */
export function isUnfinished(task) {
  return UNFINISHED.has(task.status);
}

/** @param {Task} task */
export function isExpired(task) {
  return task.result?.expires != null && task.result.expires < Date.now();
}

/** Events: `change` (the Task that is new or has changed), `remove` (a Task), `select`. */
export class Tasks extends EventTarget {
  /** @type {Map<string, Task>} */ #tasks = new Map();
  /** @type {string | null} */ #selected = null;
  #channel = new BroadcastChannel("tilewire.tasks");

  /** @param {Database} database */
  constructor(database) {
    super();
    this.database = database;
    this.#channel.onmessage = ({ data }) => this.#reload(data);
  }

  static async open() {
    const tasks = new Tasks(await Database.open());
    for (const task of await tasks.database.all()) tasks.#tasks.set(task.id, task);
    tasks.#selected = tasks.all()[0]?.id ?? null;
    return tasks;
  }

  /** @returns {Task[]} The newest first. */
  all() {
    return [...this.#tasks.values()].sort((a, b) => b.created - a.created || a.place - b.place);
  }

  /** @returns {Task[]} In the order in which they are to be done. */
  inOrder() {
    return [...this.#tasks.values()].sort((a, b) => a.created - b.created || a.place - b.place);
  }

  /** @param {string} id */
  get(id) {
    return this.#tasks.get(id);
  }

  get selected() {
    return this.#tasks.get(this.#selected ?? "") ?? null;
  }

  /** @param {string | null} id */
  select(id) {
    this.#selected = id;
    this.#tell("select", this.selected);
  }

  /** @param {Task} task */
  add(task) {
    this.#tasks.set(task.id, task);
    this.#keep(task);
    this.#tell("change", task);
    const finished = this.all().filter((each) => !isUnfinished(each) && each.status !== "ready");
    for (const old of finished.slice(MOST_FINISHED)) this.remove(old.id);
  }

  /** @param {string} id @param {Partial<Task>} changes */
  update(id, changes) {
    const task = this.#tasks.get(id);
    if (!task) return;
    Object.assign(task, changes);
    if (Object.keys(changes).some((name) => !KEEP_QUIET.has(name))) this.#keep(task);
    this.#tell("change", task);
  }

  /** @param {string} id */
  remove(id) {
    const task = this.#tasks.get(id);
    if (!task) return;
    this.#drop(task);
    this.database.remove(id).then(() => this.#channel.postMessage(id));
  }

  /** @param {Task} task */
  #drop(task) {
    const order = this.all();
    const index = order.indexOf(task);
    this.#tasks.delete(task.id);
    this.#tell("remove", task);
    if (this.#selected === task.id) this.select((order[index + 1] ?? order[index - 1])?.id ?? null);
  }

  /** @param {Task} task */
  #keep(task) {
    this.database.put(task).then(() => this.#channel.postMessage(task.id));
  }

  /** Another tab has changed a task. @param {string} id */
  async #reload(id) {
    const stored = await this.database.get(id);
    const known = this.#tasks.get(id);
    if (stored) {
      if (known) Object.assign(known, stored);
      else this.#tasks.set(id, stored);
      this.#tell("change", this.#tasks.get(id));
    } else if (known) {
      this.#drop(known);
    }
  }

  /** @param {string} name @param {any} detail */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
