/** One upscale: a promise of its result, and the events on the way to it. */

/**
 * @typedef {import("./errors.js").Item} Item
 * @typedef {{type: "upload", sent: number, total: number, progress: number}
 *   | {type: "waiting", until: number}
 *   | {type: "queued", position: number}
 *   | {type: "progress", progress: number}
 *   | {type: "tile", x: number, y: number, width: number, height: number, imageWidth: number, imageHeight: number, blob: Blob}
 * } UpscaleEvent Progress is from 0 to 1, `until` in milliseconds since the epoch, tiles are in pixels of the result.
 */

/** Awaited it gives the result, looped over by `for await` its events; either throws what went wrong. */
export class UpscaleTask {
  get [Symbol.toStringTag]() {
    return "UpscaleTask";
  }

  /** @type {Promise<import("./tilewire.js").Result>} */ #result;
  /** @type {UpscaleEvent[]} Not taken yet. */ #events = [];
  /** @type {(() => void) | undefined} */ #wake;
  #ended = false;

  /**
   * @param {string} taskUUID
   * @param {(tell: (event: UpscaleEvent) => void) => Promise<import("./tilewire.js").Result>} work
   * @param {() => void} cancel
   */
  constructor(taskUUID, work, cancel) {
    this.taskUUID = taskUUID;
    this.cancel = cancel;
    this.#result = work((event) => this.#tell(event)).finally(() => {
      this.#ended = true;
      this.#wake?.();
    });
    this.#result.catch(() => {}); // whoever waits or loops hears of it
  }

  /** @type {Promise<import("./tilewire.js").Result>["then"]} */
  then(done, failed) {
    return this.#result.then(done, failed);
  }

  /** @type {Promise<import("./tilewire.js").Result>["catch"]} */
  catch(failed) {
    return this.#result.catch(failed);
  }

  /** @type {Promise<import("./tilewire.js").Result>["finally"]} */
  finally(ended) {
    return this.#result.finally(ended);
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      const event = this.#events.shift();
      if (event) yield event;
      else if (this.#ended) break;
      else await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
    }
    await this.#result; // throws if it failed
  }

  /** Who is slow hears of the latest state only, but of every tile. @param {UpscaleEvent} event */
  #tell(event) {
    const last = this.#events.at(-1);
    if (last && last.type === event.type && event.type !== "tile") this.#events.pop();
    this.#events.push(event);
    this.#wake?.();
  }
}
