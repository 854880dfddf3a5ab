/**
 * The one socket. It signs in, keeps itself alive, and comes back by itself, resuming its session, until it
 * is closed or the key is refused.
 */

import { decode, encode } from "./messagepack.js";
import { newUUID } from "./uuid.js";

const SUBPROTOCOL = "tilewire.msgpack";
const SIGN_IN_PATIENCE = 15_000; // from the connect to the answer to the key
const PING_EVERY = 30_000;
const PONG_PATIENCE = 10_000;
const DELAYS = [300, 1000, 2000, 4000, 8000, 15_000];

/**
 * @typedef {Record<string, any>} Item
 * @typedef {{code: string, message: string, taskUUID?: string, taskType?: string, parameter?: string,
 *   documentation?: string, retryAfter?: number, cost?: number}} ErrorItem
 *
 * @typedef {object} Listening What to do while a request has no answer yet. All may be left out.
 * @property {(item: Item) => void} [onNews] It is under way.
 * @property {(until: number) => void} [onWait] The server asked to send it later; it will be, then.
 * @property {AbortSignal} [signal] Nobody wants the answer any more.
 *
 * @typedef {Listening & {task: Item, resolve: (item: Item) => void, reject: (error: Error) => void,
 *   timer?: number}} Request
 */

/** The connection ended before the reply came. */
export class ConnectionLost extends Error {}

/** The server's answer is an error. */
export class Refused extends Error {
  /** @param {ErrorItem} item */
  constructor(item) {
    super(item.message);
    this.item = item;
  }
}

/** Events: `online`; `offline` (seconds to wait if the server named them, else null); `refused` (a Refused, of the key). */
export class Connection extends EventTarget {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {string | null} */ #key = null;
  /** @type {string | undefined} */ #session;
  /** @type {Map<string, Request>} */ #requests = new Map();
  #failures = 0;
  /** @type {number | undefined} */ #retry;
  /** @type {number | undefined} */ #heartbeat;
  /** @type {number | undefined} Runs while an answer is due. */ #deadline;
  #notBefore = 0; // the server asked to stay away until then
  online = false;

  /** @param {string} url */
  constructor(url) {
    super();
    this.url = url;
    addEventListener("online", () => this.#soon());
    document.addEventListener("visibilitychange", () => document.hidden || this.#soon());
  }

  /** @param {string} key */
  open(key) {
    this.close();
    this.#key = key;
    this.#connect();
  }

  /** End the session. */
  close() {
    this.#key = null;
    this.#session = undefined;
    this.#drop();
  }

  /** Bytes that are given to the socket and not sent yet. */
  get unsent() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /**
   * A task and its answer. If the server asks for patience (`retryAfter`), the same task is sent again then.
   * @param {Item} task With a UUID, or it gets one.
   * @param {Listening} [listening]
   * @returns {Promise<Item>} Rejects with ConnectionLost, Refused, or the signal's reason.
   */
  request(task, listening = {}) {
    const { signal } = listening;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (!this.online) return Promise.reject(new ConnectionLost());
    const { taskUUID = newUUID() } = task;
    return new Promise((resolve, reject) => {
      const request = { ...listening, task: { ...task, taskUUID }, resolve, reject };
      this.#requests.set(taskUUID, request);
      signal?.addEventListener("abort", () => {
        if (this.#requests.get(taskUUID) === request) this.#end(taskUUID)?.reject(signal.reason);
      });
      this.#send(request.task);
    });
  }

  /** Send a task that waits for its answer once more: it may have gone elsewhere. @param {string} taskUUID */
  resend(taskUUID) {
    const request = this.#requests.get(taskUUID);
    if (request && request.timer === undefined) this.#send(request.task);
  }

  /** @param {Item} task */
  #send(task) {
    if (this.online) this.#socket?.send(encode([task]));
  }

  #connect() {
    const socket = new WebSocket(this.url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const authentication = { apiKey: this.#key, connectionSessionUUID: this.#session };
      socket.send(encode([{ taskType: "authentication", ...authentication }]));
    };
    socket.onmessage = ({ data }) => socket === this.#socket && this.#take(decode(data));
    socket.onclose = ({ code }) => socket === this.#socket && this.#lost(code);
    this.#socket = socket;
    this.#deadline = setTimeout(() => this.#lost(), SIGN_IN_PATIENCE);
  }

  /** @param {{data?: Item[], errors?: ErrorItem[]}} frame */
  #take({ data = [], errors = [] }) {
    if (this.online) clearTimeout(this.#deadline); // whatever came, it is alive
    for (const item of data) {
      if (item.taskType === "authentication") this.#signedIn(item.connectionSessionUUID);
      else if (item.status === "processing") this.#requests.get(item.taskUUID)?.onNews?.(item);
      else this.#end(item.taskUUID)?.resolve(item);
    }
    for (const item of errors) {
      if (!this.online && item.taskType === "authentication") this.#refuse(item);
      else if (item.retryAfter !== undefined) this.#postpone(item.taskUUID ?? "", item.retryAfter);
      else this.#end(item.taskUUID ?? "")?.reject(new Refused(item));
    }
  }

  /** @param {string} taskUUID */
  #end(taskUUID) {
    const request = this.#requests.get(taskUUID);
    clearTimeout(request?.timer);
    this.#requests.delete(taskUUID);
    return request;
  }

  /** @param {string} taskUUID @param {number} seconds */
  #postpone(taskUUID, seconds) {
    const request = this.#requests.get(taskUUID);
    if (!request || request.timer !== undefined) return;
    request.timer = setTimeout(() => {
      request.timer = undefined;
      this.#send(request.task);
    }, seconds * 1000);
    request.onWait?.(Date.now() + seconds * 1000);
  }

  /** @param {string} session */
  #signedIn(session) {
    clearTimeout(this.#deadline);
    this.#session = session;
    this.#failures = 0;
    this.online = true;
    this.#heartbeat = setInterval(() => this.#ping(), PING_EVERY);
    this.#tell("online");
  }

  /** @param {ErrorItem} item */
  #refuse(item) {
    if (item.retryAfter !== undefined) return this.#lost(1013, item.retryAfter);
    this.close();
    this.#tell("refused", new Refused(item));
  }

  #ping() {
    this.#send({ taskType: "ping", ping: true });
    const expect = () => {
      clearTimeout(this.#deadline);
      // A busy upload may keep the ping waiting; it is alive as long as bytes leave.
      const unsent = this.unsent;
      this.#deadline = setTimeout(() => (this.unsent < unsent ? expect() : this.#lost()), PONG_PATIENCE);
    };
    expect();
  }

  /** @param {number} [code] @param {number} [wait] Seconds, if the server named them. */
  #lost(code, wait) {
    if (code === 4000) this.#session = undefined; // another page has taken the session over
    this.#drop();
    if (this.#key !== null) {
      this.#notBefore = wait ? Date.now() + wait * 1000 : 0;
      const delay = DELAYS[Math.min(this.#failures++, DELAYS.length - 1)];
      this.#retry = setTimeout(() => this.#connect(), wait ? wait * 1000 : delay * (0.75 + Math.random() / 2));
    }
    this.#tell("offline", wait ?? null);
  }

  /** Connect without waiting any longer: the network or the user is back. */
  #soon() {
    if (this.#key === null || this.#socket !== null || Date.now() < this.#notBefore) return;
    clearTimeout(this.#retry);
    this.#connect();
  }

  #drop() {
    const socket = this.#socket;
    this.online = false;
    this.#socket = null;
    clearInterval(this.#heartbeat);
    clearTimeout(this.#deadline);
    clearTimeout(this.#retry);
    socket?.close();
    for (const taskUUID of [...this.#requests.keys()]) this.#end(taskUUID)?.reject(new ConnectionLost());
  }

  /** @param {string} name @param {any} [detail] */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
