/**
 * The one socket. It signs in, keeps itself alive, and comes back by itself, resuming its session, until it
 * is closed or the key is refused.
 */

import { decode, encode } from "./messagepack.js";
import { newUUID } from "./uuid.js";

const SUBPROTOCOL = "tilewire.msgpack";
const PING_EVERY = 30_000;
const PONG_PATIENCE = 10_000;
const DELAYS = [300, 1000, 2000, 4000, 8000, 15_000];

/**
 * @typedef {Record<string, any>} Item
 * @typedef {{code: string, message: string, taskUUID?: string, taskType?: string, parameter?: string,
 *   documentation?: string, retryAfter?: number}} ErrorItem
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

/**
 * Events: `online`; `offline`; `refused` (a Refused, of the key); `item` and `error`: what belongs to no
 * request, such as the news of upscales.
 */
export class Connection extends EventTarget {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {string | null} */ #key = null;
  /** @type {string | undefined} */ #session;
  /** @type {Map<string, {resolve: (item: Item) => void, reject: (error: Error) => void}>} */
  #waiting = new Map();
  #failures = 0;
  /** @type {number | undefined} */ #retry;
  /** @type {number | undefined} */ #heartbeat;
  /** @type {number | undefined} */ #deadline;
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
    clearTimeout(this.#retry);
    this.#socket?.close();
    this.#forget();
  }

  /** Bytes that are given to the socket and not sent yet. */
  get unsent() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** @param {Item} task */
  send(task) {
    if (this.online) this.#socket?.send(encode([task]));
  }

  /**
   * A task with one reply.
   * @param {Item} task Without its UUID.
   * @returns {Promise<Item>} Rejects with ConnectionLost or Refused.
   */
  request(task) {
    if (!this.online) return Promise.reject(new ConnectionLost());
    const taskUUID = newUUID();
    return new Promise((resolve, reject) => {
      this.#waiting.set(taskUUID, { resolve, reject });
      this.send({ ...task, taskUUID });
    });
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
  }

  /** @param {{data?: Item[], errors?: ErrorItem[]}} frame */
  #take({ data = [], errors = [] }) {
    for (const item of data) {
      const waiting = this.#answered(item);
      if (item.taskType === "authentication") this.#signedIn(item.connectionSessionUUID);
      else if (item.taskType === "ping") clearTimeout(this.#deadline);
      else if (waiting) waiting.resolve(item);
      else this.#tell("item", item);
    }
    for (const item of errors) {
      const waiting = this.#answered(item);
      if (!this.online && item.taskType === "authentication") this.#refuse(item);
      else if (waiting) waiting.reject(new Refused(item));
      else this.#tell("error", item);
    }
  }

  /** @param {Item} item */
  #answered(item) {
    const waiting = this.#waiting.get(item.taskUUID);
    this.#waiting.delete(item.taskUUID);
    return waiting;
  }

  /** @param {string} session */
  #signedIn(session) {
    this.#session = session;
    this.#failures = 0;
    this.online = true;
    this.#heartbeat = setInterval(() => this.#ping(), PING_EVERY);
    this.#tell("online");
  }

  /** @param {ErrorItem} item */
  #refuse(item) {
    this.close();
    this.#tell("refused", new Refused(item));
  }

  #ping() {
    this.send({ taskType: "ping", ping: true });
    clearTimeout(this.#deadline);
    // A busy upload may keep the ping waiting; it is alive as long as bytes leave.
    const unsent = this.unsent;
    this.#deadline = setTimeout(() => {
      if (unsent && this.unsent < unsent) return;
      this.#socket?.close();
      this.#lost(1006);
    }, PONG_PATIENCE);
  }

  /** @param {number} code */
  #lost(code) {
    if (code === 4000) this.#session = undefined; // another page has taken the session over
    this.#forget();
    this.#tell("offline");
    if (this.#key === null) return;
    const delay = DELAYS[Math.min(this.#failures++, DELAYS.length - 1)];
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#connect(), delay * (0.75 + Math.random() / 2));
  }

  /** Connect without waiting any longer: the network or the user is back. */
  #soon() {
    if (this.#key === null || this.#socket !== null) return;
    clearTimeout(this.#retry);
    this.#connect();
  }

  #forget() {
    this.online = false;
    this.#socket = null;
    clearInterval(this.#heartbeat);
    clearTimeout(this.#deadline);
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(new ConnectionLost());
  }

  /** @param {string} name @param {any} [detail] */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
