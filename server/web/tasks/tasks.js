/**
 * The tasks of this browser: those to be started, those under way and the history. They are kept in IndexedDB,
 * so that a reload loses nothing, and in step with other tabs.
 */

import { openDatabase } from "./database.js";

/**
 * @typedef {"ready" | "waiting" | "uploading" | "processing" | "done" | "failed" | "cancelled"} Status
 * ready: not started; waiting: to be uploaded or sent; processing: accepted by the server.
 *
 * @typedef {"JPG" | "PNG" | "WEBP"} Format
 *
 * @typedef {object} Settings What the user chose.
 * @property {string} model Its AIR id.
 * @property {string} modelTitle
 * @property {number | null} factor
 * @property {number | null} targetMegapixels In place of a factor.
 * @property {Box | null} [box] In place of a factor.
 * @property {Format} format
 * @property {number} quality
 * @property {boolean} [keepMetadata]
 * @property {Record<string, any>} parameters The model's own settings.
 * @property {import("../panel/options.js").Options} [options] What else the task asks for.
 *
 * @typedef {"fit" | "fill" | "crop" | "stretch"} ResizeMode
 * @typedef {{width: number | null, height: number | null, mode?: ResizeMode}} Box What the result is to fit, one side or
 *   both; with both it may be something else.
 *
 * @typedef {object} Task
 * @property {string} id The taskUUID; a task that is tried again in the same way keeps it.
 * @property {string} picture What the results of one input share.
 * @property {number} created
 * @property {number} place Among those that were added together.
 * @property {string} name Of the file.
 * @property {Blob | null} file The input; null where the browser has no room for it.
 * @property {Format} format Of the input, or the one that suits it.
 * @property {boolean} transparent Whether the input has transparent pixels.
 * @property {number | null} width Of the input; null if the browser cannot read it.
 * @property {number | null} height
 * @property {Blob | null} thumbnail
 * @property {Settings | null} settings Since it was started.
 * @property {string | null} input UUID of the uploaded input.
 * @property {Status} status
 * @property {number} progress From 0 to 1, of the upload or the work.
 * @property {number | null} queuePosition 1 for the next; null if it does not wait, or nobody knows.
 * @property {number | null} resumes When it is sent again, if the server asked to wait.
 * @property {number | null} started When the work began, as far as the page knows. Milliseconds since the epoch.
 * @property {number | null} finished
 * @property {import("../client/errors.js").ErrorItem | null} error
 * @property {Result | null} result
 * @property {number} tries How often it was tried again.
 * @property {number} revision Rises with each change that is kept.
 *
 * @typedef {object} Result
 * @property {string} url
 * @property {string} name Of the image on the server.
 * @property {number | null} cost In USD.
 * @property {string[]} warnings
 * @property {number | null} expires Milliseconds since the epoch.
 * @property {number | null} size In bytes.
 *
 * @typedef {{id: string, tasks: Task[]}} Picture An input and what was made of it, in order.
 */

const UNFINISHED = new Set(["waiting", "uploading", "processing"]);
const STATUSES = new Set([...UNFINISHED, "ready", "done", "failed", "cancelled"]);

/** Changes that are told to other tabs and not kept: they come often, and mean nothing after a reload. */
const PASSING = new Set(["progress", "queuePosition", "resumes"]);

/** @param {Task} task Whether the server has, or will have, work with it. */
export function isUnfinished(task) {
  return UNFINISHED.has(task.status);
}

/** @param {Task} task */
export function isExpired(task) {
  return task.result?.expires != null && task.result.expires < Date.now();
}

/** Whether the result can be seen and saved. @param {Task} task */
export function isUsable(task) {
  return task.status === "done" && task.result !== null && !isExpired(task);
}

/** What a task is before it is started. */
export const FRESH = Object.freeze({
  settings: null,
  status: /** @type {Status} */ ("ready"),
  progress: 0,
  queuePosition: null,
  resumes: null,
  started: null,
  finished: null,
  error: null,
  result: null,
  tries: 0,
  revision: 0,
});

/** Events: `change` (the Task that is new or has changed), `remove` (a Task), `select`. */
export class Tasks extends EventTarget {
  /** @type {Map<string, Task>} */ #tasks = new Map();
  /** @type {Set<string>} Removed while this page is open: news of them come too late. */ #removed = new Set();
  /** @type {string | null} */ #selected = null;
  #others = otherTabs();

  /** @param {import("./database.js").Database} database */
  constructor(database) {
    super();
    this.database = database;
    if (this.#others) this.#others.onmessage = ({ data }) => this.#hear(data);
  }

  static async open() {
    const tasks = new Tasks(await openDatabase());
    for (const kept of await tasks.database.all()) if (isSound(kept)) tasks.#hear({ task: completed(kept) });
    tasks.#selected = tasks.pictures()[0]?.tasks.at(-1)?.id ?? null;
    return tasks;
  }

  /** @returns {Task[]} In the order in which they are to be done. */
  inOrder() {
    return [...this.#tasks.values()].sort((a, b) => a.created - b.created || a.place - b.place);
  }

  /** @returns {Picture[]} The newest first; of those that were added together the first. */
  pictures() {
    /** @type {Map<string, Picture>} */
    const found = new Map();
    for (const task of this.inOrder()) {
      const picture = found.get(task.picture);
      if (picture) picture.tasks.push(task);
      else found.set(task.picture, { id: task.picture, tasks: [task] });
    }
    return [...found.values()].sort(({ tasks: [a] }, { tasks: [b] }) => b.created - a.created || a.place - b.place);
  }

  /** The tasks of one picture, in order. @param {string} picture @returns {Task[]} */
  of(picture) {
    return this.inOrder().filter((task) => task.picture === picture);
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
    this.#removed.delete(task.id);
    this.#tasks.set(task.id, task);
    this.#keep(task);
    this.#tell("change", task);
  }

  /** @param {string} id @param {Partial<Task>} changes */
  update(id, changes) {
    const task = this.#tasks.get(id);
    if (!task) return;
    Object.assign(task, changes);
    if (Object.keys(changes).every((name) => PASSING.has(name))) {
      this.#others?.postMessage({ passing: changes, of: id });
    } else {
      task.revision += 1;
      this.#keep(task);
    }
    this.#tell("change", task);
  }

  /**
   * The next of the others is selected if the selected one goes.
   * @param {Task[]} gone
   */
  remove(...gone) {
    const ids = new Set(gone.map(({ id }) => id));
    const next = ids.has(this.#selected ?? "") ? this.#after(ids) : null;
    for (const id of ids) {
      this.#drop(id);
      this.database.remove(id).then(() => this.#others?.postMessage({ removed: id }));
    }
    if (!this.selected) this.select(next);
  }

  /** What is to be selected when these go: of the same picture, or the nearest. @param {Set<string>} ids */
  #after(ids) {
    const stays = (/** @type {Task} */ task) => !ids.has(task.id);
    const pictures = this.pictures();
    const index = pictures.findIndex(({ id }) => id === this.selected?.picture);
    const nearest = [pictures[index], ...pictures.slice(index + 1), ...pictures.slice(0, Math.max(0, index)).reverse()];
    return nearest.flatMap((picture) => picture?.tasks.filter(stays).at(-1)?.id ?? [])[0] ?? null;
  }

  /** @param {string} id */
  #drop(id) {
    const task = this.#tasks.get(id);
    this.#removed.add(id);
    if (!this.#tasks.delete(id)) return;
    this.#tell("remove", task);
  }

  /** @param {Task} task */
  #keep(task) {
    this.database.put(task).then(() => {
      if (this.#tasks.get(task.id) === task) this.#others?.postMessage({ task });
    });
  }

  /**
   * What another tab, or the database, has of a task.
   * @param {{task?: Task, removed?: string, passing?: Partial<Task>, of?: string}} news
   */
  #hear({ task, removed, passing, of = "" }) {
    const moving = this.#tasks.get(of);
    if (moving && isUnfinished(moving)) {
      Object.assign(moving, passing);
      this.#tell("change", moving);
    }
    if (removed !== undefined) {
      const selected = this.#selected === removed;
      const next = selected ? this.#after(new Set([removed])) : null;
      this.#drop(removed);
      if (selected) this.select(next);
    }
    if (!task || this.#removed.has(task.id)) return;
    const known = this.#tasks.get(task.id);
    if (known && !isNewer(task, known)) return; // this tab has done something since
    if (known) Object.assign(known, task);
    else this.#tasks.set(task.id, task);
    this.#tell("change", this.#tasks.get(task.id));
  }

  /** @param {string} name @param {any} detail */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** A task never goes back from its end, unless it is tried again, or to its beginning. @param {Task} one @param {Task} other */
function isNewer(one, other) {
  const stage = (/** @type {Task} */ task) => (task.status === "ready" ? 0 : isUnfinished(task) ? 1 : 2);
  return (one.tries - other.tries || stage(one) - stage(other) || one.revision - other.revision) > 0;
}

/** @returns {BroadcastChannel | null} */
function otherTabs() {
  try {
    return new BroadcastChannel("tilewire.tasks");
  } catch {
    return null; // a page that may keep nothing has no others
  }
}

/** Whether what was kept is a task. @param {any} kept */
function isSound(kept) {
  const settled = STATUSES.has(kept?.status) && (kept.status !== "done" || typeof kept.result?.name === "string");
  const started = kept?.status === "ready" || typeof kept?.settings?.model === "string";
  return settled && started && typeof kept.id === "string" && typeof kept.name === "string" && kept.created > 0;
}

/** A task as an earlier version of the page may have kept it. @param {any} kept @returns {Task} */
function completed(kept) {
  const missing = { picture: kept.id, place: 0, format: "JPG", transparent: false, thumbnail: null, file: null };
  const unknown = { width: null, height: null, input: null };
  return { ...FRESH, ...missing, ...unknown, ...kept };
}
