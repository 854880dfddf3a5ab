/** The tasks in IndexedDB; in memory where the browser does not let the page use it. */

import { FORBIDDEN, FULL, tellUnkept } from "../browser/storage.js";

/** @typedef {import("./tasks.js").Task} Task */

const NAME = "tilewire";
const STORE = "tasks";
const PATIENCE = 5000; // a browser whose database is damaged may never answer

/** @typedef {{all(): Promise<Task[]>, put(task: Task): Promise<void>, remove(id: string): Promise<void>}} Database */

/** @returns {Promise<Database>} */
export async function openDatabase() {
  try {
    const database = new IndexedDatabase(await within(PATIENCE, open()));
    await database.all(); // a damaged one opens, and fails when it is read
    return database;
  } catch {
    tellUnkept(FORBIDDEN);
    return { all: async () => [], put: async () => {}, remove: async () => {} };
  }
}

/** @returns {Promise<IDBDatabase>} */
function open() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  return settled(request);
}

/** @implements {Database} */
class IndexedDatabase {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }

  /** @returns {Promise<Task[]>} */
  all() {
    return settled(this.#store("readonly").getAll());
  }

  /** Where there is no room for the input, the task is kept without it. @param {Task} task */
  async put(task) {
    try {
      await this.#write((store) => store.put(task));
    } catch {
      tellUnkept(FULL);
      await this.#write((store) => store.put({ ...task, file: null })).catch(() => {});
    }
  }

  /** @param {string} id @returns {Promise<void>} */
  async remove(id) {
    await this.#write((store) => store.delete(id)).catch(() => tellUnkept(FORBIDDEN));
  }

  /** Room runs out when a transaction ends, not when it is asked. @param {(store: IDBObjectStore) => IDBRequest} ask */
  async #write(ask) {
    const store = this.#store("readwrite");
    ask(store);
    await new Promise((resolve, reject) => {
      store.transaction.oncomplete = () => resolve(undefined);
      store.transaction.onabort = store.transaction.onerror = () => reject(store.transaction.error);
    });
  }

  /** @param {IDBTransactionMode} mode */
  #store(mode) {
    return this.database.transaction(STORE, mode).objectStore(STORE);
  }
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @template T @param {number} milliseconds @param {Promise<T>} promise @returns {Promise<T>} */
function within(milliseconds, promise) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("too late")), milliseconds));
  return /** @type {Promise<T>} */ (Promise.race([promise, late]));
}
