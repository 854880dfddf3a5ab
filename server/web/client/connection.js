/**
 * The one socket. It signs in, keeps itself alive, renews its token, and comes back by itself, resuming its session,
 * until it is closed or the key is refused.
 */

import { ConnectionLost, TilewireError } from "./errors.js";
import { decode, encode } from "./messagepack.js";
import { newUUID } from "./uuid.js";

const SUBPROTOCOL = "tilewire.msgpack";
const SIGN_IN_PATIENCE = 15_000; // from the connect to the answer to the key
const PING_EVERY = 30_000;
const PONG_PATIENCE = 10_000;
const DELAYS = [300, 1000, 2000, 4000, 8000, 15_000];
const EXPIRED = "tokenExpiredApiKey";
const RENEW_BEFORE = 0.1; // of its time is left
const SOONEST_RENEWAL = 500; // whoever gives the same token again is not asked without end
const LONGEST_TIMER = 2 ** 31 - 1;

/**
 * @typedef {import("./errors.js").Item} Item
 * @typedef {import("./errors.js").ErrorItem} ErrorItem
 * @typedef {string | (() => string | {token: string} | Promise<string | {token: string}>)} Key An API key, a token, or
 *   what gets a new token.
 *
 * @typedef {object} Listening What to do while a request has no answer yet. All may be left out.
 * @property {(item: Item) => void} [onNews] It is under way.
 * @property {(until: number) => void} [onWait] The server asked to send it later; it will be, then.
 * @property {AbortSignal} [signal] Nobody wants the answer any more.
 *
 * @typedef {Listening & {task: Item, resolve: (item: Item) => void, reject: (error: Error) => void,
 *   detach: () => void, timer?: ReturnType<typeof setTimeout>, sentWith?: string, isLate?: boolean}} Request
 */

/** Events: `online`; `offline` (seconds to wait if the server named them, else null); `refused` (a TilewireError, of the key). */
export class Connection extends EventTarget {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Key | null} */ #key = null;
  /** @type {string | undefined} What the server knows us by. */ #token;
  /** @type {string | undefined} What is sent, and not yet answered. */ #offered;
  #insists = false; // on what it is to take the place of
  #renewAt = 0;
  #renewing = false;
  /** @type {string | undefined} */ #session;
  /** @type {Map<string, Request>} */ #requests = new Map();
  #failures = 0;
  #opened = 0; // rises with each `open` and `close`: what an earlier one awaits is in vain
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retry;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #heartbeat;
  /** @type {ReturnType<typeof setTimeout> | undefined} Runs while an answer is due. */ #deadline;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #renewal;
  /** @type {AbortController} Ends what listens to the browser. */ #listening = new AbortController();
  #notBefore = 0; // the server asked to stay away until then
  online = false;

  /** @param {string} url Of the WebSocket. */
  constructor(url) {
    super();
    this.url = url;
  }

  /** @param {Key} key @param {string} [previous] A token whose place `key` takes, or is refused: it sees what that one began. */
  open(key, previous) {
    this.close();
    this.#key = key;
    this.#token = previous;
    this.#insists = previous !== undefined;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    globalThis.addEventListener?.("online", () => this.#soon(), { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden || this.#soon(), { signal });
    this.#connect();
  }

  /** End the session. */
  close() {
    this.#key = null;
    this.#token = this.#offered = undefined;
    this.#session = undefined;
    this.#renewAt = 0;
    this.#listening.abort();
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
   * @returns {Promise<Item>} Rejects with ConnectionLost, TilewireError, or the signal's reason.
   */
  request(task, listening = {}) {
    const { signal } = listening;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (!this.online) return Promise.reject(new ConnectionLost());
    const { taskUUID = newUUID() } = task;
    return new Promise((resolve, reject) => {
      const onAbort = () => this.#requests.get(taskUUID) === request && this.#end(taskUUID)?.reject(signal?.reason);
      const detach = () => signal?.removeEventListener("abort", onAbort);
      /** @type {Request} */
      const request = { ...listening, task: { ...task, taskUUID }, resolve, reject, detach };
      this.#requests.set(taskUUID, request);
      signal?.addEventListener("abort", onAbort);
      this.#submit(request);
    });
  }

  /** Send a task that waits for its answer once more: it may have gone elsewhere. @param {string} taskUUID */
  resend(taskUUID) {
    const request = this.#requests.get(taskUUID);
    if (request && request.timer === undefined) this.#submit(request);
  }

  /** @param {Request} request */
  #submit(request) {
    request.sentWith = this.#token;
    request.isLate = false;
    this.#send(request.task);
  }

  /** @param {Item} task */
  #send(task) {
    if (this.online) this.#socket?.send(encode([task]));
  }

  async #connect() {
    const opened = this.#opened;
    this.#deadline = setTimeout(() => this.#lost(), SIGN_IN_PATIENCE);
    const token = await this.#currentToken();
    if (token === undefined || opened !== this.#opened) return;
    const socket = new WebSocket(this.url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#authenticate(socket, token);
    socket.onmessage = ({ data }) => socket === this.#socket && this.#take(decode(data));
    socket.onclose = ({ code }) => socket === this.#socket && this.#lost(code);
    this.#socket = socket;
  }

  /** @param {WebSocket} socket @param {string} token */
  #authenticate(socket, token) {
    const previous = this.#token === token ? undefined : this.#token;
    this.#offered = token;
    const authentication = { apiKey: token, previousApiKey: previous, connectionSessionUUID: this.#session };
    socket.send(encode([{ taskType: "authentication", ...authentication }]));
  }

  /** What to authenticate with; undefined if there is nothing, which was said then. @returns {Promise<string | undefined>} */
  async #currentToken() {
    const key = this.#key;
    if (typeof key !== "function") return key ?? undefined;
    if (this.#token !== undefined && Date.now() < this.#renewAt) return this.#token;
    const opened = this.#opened;
    try {
      const got = await key();
      const token = typeof got === "string" ? got : got?.token;
      if (typeof token !== "string" || !token) throw new TypeError("it gave none");
      return token;
    } catch (cause) {
      if (opened !== this.#opened) return undefined;
      if (cause instanceof TilewireError) this.#refuse(cause);
      else this.#lost(undefined, undefined, cause); // the backend may be away as the server may be
      return undefined;
    }
  }

  /** Take a new token over the open connection. */
  async #renew() {
    if (this.#renewing) return;
    this.#renewing = true; // until it is answered, or the connection lost
    this.#renewAt = 0;
    const socket = this.#socket;
    const token = await this.#currentToken();
    if (token !== undefined && socket && socket === this.#socket) this.#authenticate(socket, token);
  }

  /** @param {{data?: Item[], errors?: ErrorItem[]}} frame */
  #take({ data = [], errors = [] }) {
    if (this.online) clearTimeout(this.#deadline); // whatever came, it is alive
    for (const item of data) {
      if (item.taskType === "authentication") this.#signedIn(item.connectionSessionUUID, item.expiresIn);
      else if (item.status === "processing") this.#requests.get(item.taskUUID)?.onNews?.(item);
      else this.#end(item.taskUUID)?.resolve(item);
    }
    for (const item of errors) {
      if (item.taskType === "authentication") this.#refused(item);
      else if (item.code === EXPIRED && typeof this.#key === "function") this.#tooLate(item.taskUUID ?? "");
      else if (item.retryAfter !== undefined) this.#postpone(item.taskUUID ?? "", item.retryAfter);
      else this.#end(item.taskUUID ?? "")?.reject(new TilewireError(item));
    }
  }

  /** A task came too late for the token: it is sent again with a new one. @param {string} taskUUID */
  #tooLate(taskUUID) {
    const request = this.#requests.get(taskUUID);
    if (!request) return;
    if (request.sentWith !== this.#token) return this.#submit(request);
    request.isLate = true;
    this.#renew();
  }

  /** @param {string} taskUUID */
  #end(taskUUID) {
    const request = this.#requests.get(taskUUID);
    clearTimeout(request?.timer);
    request?.detach();
    this.#requests.delete(taskUUID);
    return request;
  }

  /** @param {string} taskUUID @param {number} seconds */
  #postpone(taskUUID, seconds) {
    const request = this.#requests.get(taskUUID);
    if (!request || request.timer !== undefined) return;
    request.timer = setTimeout(() => {
      request.timer = undefined;
      this.#submit(request);
    }, seconds * 1000);
    request.onWait?.(Date.now() + seconds * 1000);
  }

  /** @param {string} session @param {number | undefined} expiresIn Seconds, of a token. */
  #signedIn(session, expiresIn) {
    clearTimeout(this.#deadline);
    const renewed = this.online;
    this.#token = this.#offered;
    this.#insists = false;
    this.#session = session;
    this.#renewing = false;
    this.#failures = 0;
    if (expiresIn === undefined) this.#renewAt = Infinity;
    else this.#renewIn(Math.max(expiresIn * 1000 * (1 - RENEW_BEFORE), SOONEST_RENEWAL));
    this.online = true;
    if (!renewed) {
      this.#heartbeat = setInterval(() => this.#ping(), PING_EVERY);
      this.#tell("online");
      return;
    }
    for (const request of this.#requests.values()) if (request.isLate) this.#submit(request);
  }

  /** @param {number} milliseconds */
  #renewIn(milliseconds) {
    this.#renewAt = Date.now() + milliseconds;
    clearTimeout(this.#renewal);
    if (typeof this.#key === "function") this.#renewal = setTimeout(() => this.#renew(), Math.min(milliseconds, LONGEST_TIMER));
  }

  /** The key or token is refused. @param {ErrorItem} item */
  #refused(item) {
    if (item.code === "invalidPreviousApiKey" && !this.#insists) { // the new one was used elsewhere, or the old one is forgotten
      this.#token = this.#session = undefined;
      this.#lost();
    } else if (this.#mayRenew(item)) {
      this.#renewAt = 0;
      this.#lost();
    } else if (item.retryAfter !== undefined) this.#lost(1013, item.retryAfter);
    else this.#refuse(new TilewireError(item));
  }

  /** Whether a new token may help. @param {ErrorItem} item */
  #mayRenew({ code }) {
    if (typeof this.#key !== "function" || this.#failures >= DELAYS.length) return false;
    return code === EXPIRED || (code === "invalidApiKey" && this.#offered === this.#token);
  }

  /** @param {TilewireError} error */
  #refuse(error) {
    this.close();
    this.#tell("refused", error);
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

  /** @param {number} [code] @param {number} [wait] Seconds, if the server named them. @param {unknown} [cause] */
  #lost(code, wait, cause) {
    if (code === 4000) this.#session = undefined; // another page has taken the session over
    this.#drop();
    if (this.#key !== null) {
      this.#notBefore = wait ? Date.now() + wait * 1000 : 0;
      const delay = DELAYS[Math.min(this.#failures++, DELAYS.length - 1)];
      this.#retry = setTimeout(() => this.#again(), wait ? wait * 1000 : delay * (0.75 + Math.random() / 2));
    }
    this.cause = cause;
    this.#tell("offline", wait ?? null);
  }

  /** Connect without waiting any longer: the network or the user is back. */
  #soon() {
    if (this.#key === null || this.#retry === undefined || Date.now() < this.#notBefore) return;
    this.#again();
  }

  #again() {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#connect();
  }

  #drop() {
    const socket = this.#socket;
    this.#opened += 1;
    this.online = this.#renewing = false;
    this.#socket = null;
    clearInterval(this.#heartbeat);
    clearTimeout(this.#deadline);
    clearTimeout(this.#retry);
    clearTimeout(this.#renewal);
    this.#retry = undefined;
    socket?.close();
    for (const taskUUID of [...this.#requests.keys()]) this.#end(taskUUID)?.reject(new ConnectionLost());
  }

  /** @param {string} name @param {any} [detail] */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
