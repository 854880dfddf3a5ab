/** The client for pages and workers: upscales, with everything that may happen on the way. */

import { Connection } from "./connection.js";
import { ConnectionLost, TilewireError } from "./errors.js";
import { fileOf, hasAlpha, headOf, imageDataOf, nameOfSource, sizeOf } from "./sources.js";
import { UpscaleTask } from "./task.js";
import { newUUID } from "./uuid.js";

/**
 * @typedef {import("./errors.js").Item} Item
 * @typedef {import("./sources.js").Source} Source
 * @typedef {import("./task.js").UpscaleEvent} UpscaleEvent
 *
 * @typedef {object} UpscaleOptions All may be left out.
 * @property {string} [model] Name or AIR id.
 * @property {number} [factor]
 * @property {number} [megapixels] In place of a factor.
 * @property {number} [width] In place of a factor.
 * @property {number} [height]
 * @property {"fit" | "fill" | "crop" | "stretch"} [resizeMode]
 * @property {"JPG" | "PNG" | "WEBP"} [format]
 * @property {number} [quality]
 * @property {boolean} [keepMetadata]
 * @property {boolean} [keepHiddenColors]
 * @property {number} [ttl] Seconds until the server deletes the result.
 * @property {Record<string, any>} [settings] Of the model.
 * @property {boolean} [tiles] Whether to get finished parts of the result.
 * @property {AbortSignal} [signal] Cancels it.
 * @property {string} [taskUUID]
 *
 * @typedef {object} Result
 * @property {Blob} blob
 * @property {string} url
 * @property {string} uuid
 * @property {number} width
 * @property {number} height
 * @property {number | null} cost In USD.
 * @property {number | null} seed
 * @property {string[]} warnings
 * @property {string} taskUUID
 */

const PATIENCE = 300_000;
const LAST_WORDS = 2000;
const LOOK_EVERY = 100;
const HEAD = 64; // bytes that say whether there is transparency
const LONG_HEAD = 2 ** 20; // metadata may stand before the size
const SMALL = 2 ** 18; // bytes of an image whose result comes over the socket, which holds up the thread for a large one
const TRIES = 6;
/** @typedef {"JPG" | "PNG" | "WEBP"} Format */
/** @type {Record<string, string>} */
const MEDIA_TYPES = { JPG: "image/jpeg", PNG: "image/png", WEBP: "image/webp" };

export class Tilewire {
  #connection;
  #key;
  #patience;
  /** @type {Promise<unknown>} One upload at a time: the socket stays free for the rest, and one image is in memory. */ #uploads = Promise.resolve();
  /** @type {Map<string, AbortController>} */ #tasks = new Map();
  /** @type {Set<Promise<void>>} */ #cancelling = new Set();
  /** @type {TilewireError | null} Why nothing can be done any more. */ #over = null;
  /** @type {Set<() => void>} */ #waiting = new Set();
  #isOpen = false;

  /**
   * @param {string | URL} url Of the server.
   * @param {import("./connection.js").Key} key A token, an API key, or a function that gets a token whenever a new one is needed.
   * @param {{patience?: number}} [options] patience: seconds without a connection after which tasks fail; 300 by default.
   */
  constructor(url, key, { patience = PATIENCE / 1000 } = {}) {
    this.#connection = new Connection(socketURL(url));
    this.#key = key;
    this.#patience = patience * 1000;
    this.#connection.addEventListener("online", () => this.#look());
    this.#connection.addEventListener("refused", (event) => {
      this.#over = /** @type {CustomEvent} */ (event).detail;
      this.#look();
      this.#over = null; // another task tries again
      this.#isOpen = false;
    });
  }

  /**
   * Upscale an image. What is interrupted, by the network or the server, goes on by itself and is charged once.
   * @param {Source | Promise<Source>} source
   * @param {UpscaleOptions} [options]
   */
  upscale(source, { signal, taskUUID = newUUID(), ...options } = {}) {
    const stop = new AbortController();
    const cancel = (/** @type {unknown} */ reason) => stop.abort(reason);
    if (signal?.aborted) cancel(signal.reason);
    const onAbort = () => cancel(signal?.reason);
    signal?.addEventListener("abort", onAbort);
    this.#tasks.set(taskUUID, stop);
    const work = async (/** @type {(event: UpscaleEvent) => void} */ tell) => {
      try {
        return await this.#upscale(taskUUID, await source, options, stop.signal, tell);
      } finally {
        signal?.removeEventListener("abort", onAbort);
        this.#tasks.delete(taskUUID);
      }
    };
    return new UpscaleTask(taskUUID, work, () => cancel(new DOMException("the task was cancelled", "AbortError")));
  }

  /**
   * Upscale pixels without any file around them: the fastest way for small pictures, and no loss. They are not stored.
   * @param {ImageData} source @param {UpscaleOptions} [options] No format, and no tiles.
   * @returns {Promise<ImageData>}
   */
  async upscalePixels({ width, height, data }, { signal, taskUUID = newUUID(), ...options } = {}) {
    const pixels = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const task = {
      ...taskOf(taskUUID, { image: "", isSmall: false, format: undefined }, options),
      inputs: { image: { width, height, channels: 4, pixels } },
      outputFormat: "RAW",
      includeProgress: undefined,
      includeTiles: undefined,
    };
    try {
      return imageDataOf((await this.request(task, { signal })).image);
    } catch (error) {
      if (signal?.aborted) this.#cancel(taskUUID);
      throw error;
    }
  }

  /** The models that may be used. @returns {Promise<Item[]>} */
  async models() {
    return (await this.request({ taskType: "modelSearch", limit: 100 })).results;
  }

  /**
   * The answer to any task of the protocol; sent again until there is one.
   * @param {Item} task @param {import("./connection.js").Listening} [listening]
   * @returns {Promise<Item>}
   */
  request(task, listening = {}) {
    return this.#request(task, listening);
  }

  /**
   * @param {Item} task @param {import("./connection.js").Listening} listening
   * @param {() => Promise<unknown>} [check] Before it is sent, each time.
   * @returns {Promise<Item>}
   */
  async #request(task, listening, check) {
    const named = { taskUUID: newUUID(), ...task };
    for (;;) {
      await this.#online(listening.signal);
      await check?.();
      try {
        return await this.#connection.request(named, listening);
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
      }
    }
  }

  /** Cancel what is under way, and close the connection. */
  async close() {
    const closed = new TilewireError({ code: "closed", message: "the client was closed" });
    for (const stop of this.#tasks.values()) stop.abort(closed);
    await new Promise((resolve) => setTimeout(resolve)); // what is aborted asks to be cancelled
    const late = new Promise((resolve) => setTimeout(resolve, LAST_WORDS));
    if (this.#connection.online) await Promise.race([Promise.all(this.#cancelling), late]);
    this.#over = closed;
    this.#look();
    this.#connection.close();
  }

  /**
   * @param {string} taskUUID @param {Source} source @param {UpscaleOptions} options @param {AbortSignal} signal
   * @param {(event: UpscaleEvent) => void} tell
   * @returns {Promise<Result>}
   */
  async #upscale(taskUUID, source, options, signal, tell) {
    signal.throwIfAborted();
    const listening = {
      signal,
      onNews: (/** @type {Item} */ item) => eventsOf(item).forEach(tell),
      onWait: (/** @type {number} */ until) => tell({ type: "waiting", until }),
    };
    const named = nameOfSource(source);
    const input = named === null ? await this.#upload(source, listening, tell) : { image: named, isSmall: false, format: undefined };
    const task = taskOf(taskUUID, input, options);
    try {
      return await this.#resultOf(await this.request(task, listening), task.outputFormat, signal);
    } catch (error) {
      if (signal.aborted) this.#cancel(taskUUID);
      throw error;
    }
  }

  /** @param {Source} source @param {import("./connection.js").Listening} listening @param {(event: UpscaleEvent) => void} tell */
  #upload(source, listening, tell) {
    const turn = this.#uploads.then(() => this.#uploadNow(source, listening, tell));
    this.#uploads = turn.catch(() => {});
    return turn;
  }

  /**
   * Gives the UUID, whether it is small, and the format that keeps what the image has.
   * @param {Source} source @param {import("./connection.js").Listening} listening @param {(event: UpscaleEvent) => void} tell
   */
  async #uploadNow(source, { signal, onWait }, tell) {
    signal?.throwIfAborted();
    const image = await fileOf(source);
    const head = await headOf(image, HEAD);
    const total = image.size;
    const report = (/** @type {number} */ sent) => tell({ type: "upload", sent, total, progress: total && sent / total });
    report(0);
    const watch = setInterval(() => report(Math.max(0, total - this.#connection.unsent)), LOOK_EVERY);
    try {
      const { imageUUID } = await this.#request({ taskType: "imageUpload", image }, { signal, onWait }, () => headOf(image, 1));
      report(total);
      const format = /** @type {Format | undefined} */ (hasAlpha(head) ? "PNG" : undefined);
      return { image: String(imageUUID), isSmall: total <= SMALL, format };
    } finally {
      clearInterval(watch);
    }
  }

  /** @param {Item} item @param {Format} format @param {AbortSignal} signal @returns {Promise<Result>} */
  async #resultOf({ imageBase64Data, imageURL, imageUUID, cost, seed, warnings, taskUUID }, format, signal) {
    const type = MEDIA_TYPES[format];
    const blob = imageBase64Data ? new Blob([imageBase64Data], { type }) : await this.#fetch(imageURL, signal);
    return {
      blob,
      url: imageURL,
      uuid: imageUUID,
      ...sizeOf(await headOf(blob, LONG_HEAD)),
      cost: cost ?? null,
      seed: seed ?? null,
      warnings: warnings ?? [],
      taskUUID,
    };
  }

  /** What is at an address of the server's, once it can be had. @param {string} url @param {AbortSignal} signal @returns {Promise<Blob>} */
  async #fetch(url, signal) {
    for (let tried = 1; ; tried++) {
      let wait = 2 ** (tried - 1);
      let cause;
      try {
        const response = await fetch(url, { signal });
        if (response.ok) return await response.blob();
        wait = Number(response.headers.get("retry-after")) || wait;
        cause = new Error(`HTTP ${response.status}`);
        if (response.status !== 429 && response.status !== 503) tried = TRIES;
      } catch (error) {
        signal.throwIfAborted();
        cause = error;
      }
      if (tried >= TRIES) throw new TilewireError({ code: "unreachable", message: `the result is not to be had: ${url}` }, { cause });
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
      await this.#online(signal);
    }
  }

  /** Have the server stop a task; it may have ended by itself. @param {string} targetTaskUUID */
  #cancel(targetTaskUUID) {
    const asking = this.request({ taskType: "cancel", targetTaskUUID }).then(
      () => {},
      () => {},
    );
    this.#cancelling.add(asking);
    asking.finally(() => this.#cancelling.delete(asking));
  }

  /** Wait for the connection. @param {AbortSignal} [signal] @returns {Promise<void>} */
  #online(signal) {
    if (this.#over) return Promise.reject(this.#over);
    if (!this.#isOpen) {
      this.#isOpen = true;
      this.#connection.open(this.#key);
    }
    if (this.#connection.online) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const look = () => {
        if (signal?.aborted) reject(signal.reason);
        else if (this.#over) reject(this.#over);
        else if (this.#connection.online) resolve();
        else return;
        clearTimeout(late);
        signal?.removeEventListener("abort", look);
        this.#waiting.delete(look);
      };
      const late = setTimeout(() => {
        const message = `no connection for ${this.#patience / 1000} seconds`;
        reject(new TilewireError({ code: "unreachable", message }, { cause: this.#connection.cause }));
        this.#waiting.delete(look);
      }, this.#patience);
      signal?.addEventListener("abort", look);
      this.#waiting.add(look);
    });
  }

  #look() {
    for (const look of [...this.#waiting]) look();
  }
}

/** @param {string | URL} url */
function socketURL(url) {
  const address = new URL(url, globalThis.location?.href);
  address.protocol = address.protocol.replace(/^http/, "ws");
  if (!address.pathname.endsWith("/v1")) address.pathname = address.pathname.replace(/\/?$/, "/v1");
  return address.href;
}

/**
 * The task as it is sent; the same each time.
 * @param {string} taskUUID
 * @param {{image: string, isSmall: boolean, format: Format | undefined}} input With the format, if none is asked for.
 * @param {UpscaleOptions} options
 */
function taskOf(taskUUID, input, { factor, megapixels, format = input.format ?? "JPG", quality, tiles, ...options }) {
  return {
    taskType: "upscale",
    taskUUID,
    inputs: { image: input.image },
    ...options,
    upscaleFactor: factor,
    targetMegapixels: megapixels,
    outputFormat: format,
    outputQuality: quality,
    outputType: input.isSmall ? ["URL", "base64Data"] : "URL",
    includeCost: true,
    includeProgress: true,
    includeTiles: tiles,
  };
}

/** @param {Item} item @returns {UpscaleEvent[]} */
function eventsOf({ progress, queuePosition, tile }) {
  if (queuePosition !== undefined) return [{ type: "queued", position: queuePosition }];
  /** @type {UpscaleEvent[]} */
  const events = [{ type: "progress", progress: progress / 100 }];
  if (tile) {
    const { image, mediaType, ...place } = tile;
    events.push({ type: "tile", ...place, blob: new Blob([image], { type: mediaType }) });
  }
  return events;
}
