/**
 * The picture of the selected task: the input, over it the tiles as they come, over these the result.
 */

import { byId, make } from "./dom.js";
import { resultSize } from "./estimate.js";
import { isExpired } from "./tasks.js";

/**
 * @typedef {import("./tasks.js").Task} Task
 * @typedef {import("./runner.js").Tile} Tile
 */

// Browsers refuse larger canvases (iOS: 16 megapixels); a larger picture sharpens at a lower resolution.
const CANVAS_AREA = 16_000_000;
const CANVAS_SIDE = 8192;

/** Events: `expired` (a Task whose result is gone). */
export class Picture extends EventTarget {
  /** @type {Task | null} */ #task = null;
  /** @type {string | null} */ #input = null;
  /** What the layers show, so that news of the same task draw nothing again. */
  #shown = { input: "", result: "" };
  #tiles = /** @type {HTMLCanvasElement} */ (byId("tiles"));
  /** @type {HTMLImageElement | null} */ #result = null;

  /**
   * @param {import("./viewer.js").Viewer} viewer
   * @param {import("./comparison.js").Comparison} comparison
   * @param {import("./runner.js").Runner} runner
   */
  constructor(viewer, comparison, runner) {
    super();
    this.viewer = viewer;
    this.comparison = comparison;
    this.runner = runner;
    runner.addEventListener("tile", (event) => {
      const { id, tile } = /** @type {CustomEvent} */ (event).detail;
      if (id === this.#task?.id) this.#draw(tile);
    });
  }

  /** @param {Task | null} task */
  show(task) {
    const other = task?.id !== this.#task?.id;
    this.#task = task;
    if (other) this.#clear();
    if (!task) return;
    if (this.#shown.input !== task.id) this.#showInput(task);
    if (task.result && !isExpired(task)) this.#showResult(task, task.result);
    else this.comparison.show(false);
    if (other) for (const tile of this.runner.tilesOf(task)) this.#draw(tile);
  }

  #clear() {
    this.#shown = { input: "", result: "" };
    byId("before").replaceChildren();
    this.#result?.remove();
    this.#result = null;
    this.#clearTiles();
    this.comparison.show(false);
    if (this.#input) URL.revokeObjectURL(this.#input);
    this.#input = null;
  }

  #clearTiles() {
    this.#tiles.hidden = true;
    this.#tiles.width = this.#tiles.height = 0; // gives the memory back
  }

  /** @param {Task} task */
  #showInput(task) {
    this.#shown.input = task.id;
    if (task.width === null || task.height === null || task.file === null) return;
    this.#input = URL.createObjectURL(task.file);
    byId("before").replaceChildren(make("img", { src: this.#input, alt: "Before", draggable: false }));
    const size = task.settings ? resultSize(task, task.settings) : { width: task.width, height: task.height };
    if (size) this.viewer.setSize(size.width, size.height);
  }

  /** @param {Task} task @param {NonNullable<Task["result"]>} result */
  async #showResult(task, { name }) {
    if (this.#shown.result === name) return;
    this.#shown.result = name;
    const image = make("img", { src: `images/${name}`, alt: "After", draggable: false });
    try {
      await image.decode(); // before it takes the place of the tiles
    } catch {
      const response = await fetch(image.src, { method: "HEAD" }).catch(() => null);
      if (response?.status === 404) this.dispatchEvent(new CustomEvent("expired", { detail: task }));
      if (this.#task === task) this.#shown.result = "";
      return;
    }
    if (this.#task !== task) return;
    this.viewer.setSize(image.naturalWidth, image.naturalHeight);
    byId("after-pixels").append(image);
    this.#result = image;
    this.#clearTiles();
    this.comparison.show(this.#input !== null);
  }

  /** @param {Tile} tile */
  async #draw({ x, y, width, height, imageWidth, imageHeight, image, mediaType }) {
    const task = this.#task;
    const bitmap = await createImageBitmap(new Blob([/** @type {BlobPart} */ (image)], { type: mediaType }));
    if (this.#task !== task || this.#result) return bitmap.close();
    this.viewer.setSize(imageWidth, imageHeight);
    const area = Math.sqrt(CANVAS_AREA / (imageWidth * imageHeight));
    const scale = Math.min(1, area, CANVAS_SIDE / Math.max(imageWidth, imageHeight));
    if (this.#tiles.hidden) {
      this.#tiles.width = Math.round(imageWidth * scale);
      this.#tiles.height = Math.round(imageHeight * scale);
      this.#tiles.hidden = false;
    }
    this.#tiles.getContext("2d")?.drawImage(bitmap, x * scale, y * scale, width * scale, height * scale);
    bitmap.close();
  }
}
