/**
 * The picture of the selected task: the input or another result to the left of the line, to its right the tiles as
 * they come, over these the result.
 */

import { byId, imageOf, make } from "../browser/dom.js";
import { paint } from "../client.js";
import { fetchImage } from "../tasks/server_images.js";
import { isUsable } from "../tasks/tasks.js";

/**
 * @typedef {import("../tasks/tasks.js").Task} Task
 * @typedef {import("../tasks/runner.js").Tile} Tile
 * @typedef {{width: number, height: number}} Size
 */

/** Events: `expired` (a Task whose result is gone). */
export class Picture extends EventTarget {
  /** @type {Task | null} */ #task = null;
  /** What the layers show, so that news of the same task draw nothing again. */
  #shown = { before: "", result: "", tiles: "" };
  #tiles = /** @type {HTMLCanvasElement} */ (byId("tiles"));
  /** @type {HTMLImageElement | null} */ #result = null;
  #painting = new AbortController(); // aborted when the tiles go

  /**
   * @param {import("./viewer.js").Viewer} viewer
   * @param {import("./comparison.js").Comparison} comparison
   * @param {import("../tasks/runner.js").Runner} runner
   * @param {(task: Task) => Size | null} sizeOf How large its result is, or would be.
   */
  constructor(viewer, comparison, runner, sizeOf) {
    super();
    this.viewer = viewer;
    this.comparison = comparison;
    this.runner = runner;
    this.sizeOf = sizeOf;
    runner.addEventListener("tile", (event) => {
      const { id, tile } = /** @type {CustomEvent} */ (event).detail;
      if (id === this.#task?.id) this.#draw(tile);
    });
  }

  /** The task that is shown. */
  get task() {
    return this.#task;
  }

  /** @param {Task | null} task @param {Task | null} [against] Another result to compare with, in place of the input. */
  show(task, against = null) {
    const other = task?.picture !== this.#task?.picture;
    this.#task = task;
    if (other) this.#clear();
    if (!task) return;
    this.#resize(task, !other);
    this.#showBefore(task, against);
    if (this.#shown.tiles !== task.id) {
      this.#clearTiles();
      this.#shown.tiles = task.id;
      for (const tile of this.runner.tilesOf(task)) this.#draw(tile);
    }
    if (isUsable(task)) this.#showResult(task);
    else this.#dropResult();
  }

  #clear() {
    this.#shown.before = "";
    byId("before").replaceChildren();
    this.#dropResult();
    this.#clearTiles();
  }

  #dropResult() {
    this.#result?.remove();
    this.#result = null;
    this.#shown.result = "";
    this.comparison.show(false);
  }

  #clearTiles() {
    this.#shown.tiles = "";
    this.#hideTiles();
  }

  #hideTiles() {
    this.#painting.abort();
    this.#painting = new AbortController();
    this.#tiles.hidden = true;
    this.#tiles.width = this.#tiles.height = 0; // gives the memory back
  }

  /** @param {Task} task @param {boolean} keep Whether what is seen stays where it is. */
  #resize(task, keep) {
    const size = this.sizeOf(task);
    if (size) this.viewer.setSize(size.width, size.height, keep);
  }

  /** @param {Task} task @param {Task | null} against */
  #showBefore(task, against) {
    const key = against?.result?.name ?? task.picture;
    if (this.#shown.before === key) return;
    this.#shown.before = key;
    const before = byId("before");
    if (against?.result) {
      const image = make("img", { src: `images/${against.result.name}`, alt: "Before", draggable: false });
      image.decode().then(
        () => this.#shown.before === key && before.replaceChildren(image),
        () => {},
      );
    } else if (task.width !== null && task.file !== null) {
      const image = imageOf(task.file, "Before");
      if (before.firstElementChild) image.decode().then(() => this.#shown.before === key && before.replaceChildren(image), () => {});
      else before.replaceChildren(image);
    } else before.replaceChildren();
  }

  /** @param {Task} task */
  async #showResult(task) {
    const name = task.result?.name ?? "";
    if (this.#shown.result === name) return this.#compare();
    this.#shown.result = name;
    const image = make("img", { src: `images/${name}`, alt: "After", draggable: false });
    if (!(await this.#decode(image, task, name))) {
      if (this.#shown.result === name) this.#shown.result = "";
      return;
    }
    if (this.#task !== task || this.#shown.result !== name) return;
    this.#result?.remove();
    this.viewer.setSize(image.naturalWidth, image.naturalHeight, true);
    byId("after-pixels").append(image);
    this.#result = image;
    this.#hideTiles();
    this.#compare();
  }

  /** Have it ready before it takes the place of the tiles. @param {HTMLImageElement} image @param {Task} task @param {string} name */
  async #decode(image, task, name) {
    try {
      await image.decode();
      return true;
    } catch {
      const response = await fetchImage(name, { method: "HEAD" }).catch(() => null);
      if (response?.status === 404) this.dispatchEvent(new CustomEvent("expired", { detail: task }));
      if (!response?.ok) return false;
    }
    image.src = `images/${name}?again`; // the server was too busy before
    return image.decode().then(
      () => true,
      () => false,
    );
  }

  #compare() {
    const other = this.#shown.before !== this.#task?.picture || byId("before").hasChildNodes();
    this.comparison.show(this.#result !== null && other, this.#task?.transparent);
  }

  /** @param {Tile} tile */
  async #draw({ image, mediaType, ...place }) {
    if (this.#result) return;
    const { signal } = this.#painting;
    const blob = new Blob([/** @type {BlobPart} */ (image)], { type: mediaType });
    await paint(this.#tiles, { ...place, blob }, { signal });
    if (signal.aborted) return;
    this.viewer.setSize(place.imageWidth, place.imageHeight, true);
    this.#tiles.hidden = false;
  }
}
