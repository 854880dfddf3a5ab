/** The tasks in IndexedDB. */

/** @typedef {import("./tasks.js").Task} Task */

const NAME = "tilewire";
const STORE = "tasks";

export class Database {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }

  /** @returns {Promise<Database>} */
  static async open() {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    return new Database(await settled(request));
  }

  /** @returns {Promise<Task[]>} */
  all() {
    return settled(this.#store("readonly").getAll());
  }

  /** @param {string} id @returns {Promise<Task | undefined>} */
  get(id) {
    return settled(this.#store("readonly").get(id));
  }

  /** Where there is no room for the input, the task is kept without it. @param {Task} task */
  async put(task) {
    try {
      await settled(this.#store("readwrite").put(task));
    } catch (error) {
      if (!(error instanceof DOMException) || task.file === null) throw error;
      await settled(this.#store("readwrite").put({ ...task, file: null }));
    }
  }

  /** @param {string} id @returns {Promise<void>} */
  remove(id) {
    return settled(this.#store("readwrite").delete(id));
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
