/** Tries the settings on the part that is seen, before the whole picture is upscaled. */

import { byId, make } from "../browser/dom.js";
import { notify } from "../browser/notices.js";
import { TilewireError } from "../client.js";
import { factorOf, largestFactor } from "../tasks/estimate.js";
import { limits } from "../tasks/images.js";
import { nameOf } from "../tasks/server_images.js";
import { duration, times } from "../text/format.js";
import { sentence } from "../text/words.js";

/** @typedef {import("../tasks/tasks.js").Task} Task */

const SIDE = 192; // pixels of the input: a second or two, and enough to judge by

export class Spot {
  #button = /** @type {HTMLButtonElement} */ (byId("try-spot"));
  /** @type {HTMLElement | null} */ #shown = null;
  /** @type {AbortController | null} */ #trying = null;

  /**
   * @param {import("./viewer.js").Viewer} viewer
   * @param {import("./comparison.js").Comparison} comparison
   * @param {import("../client/connection.js").Connection} connection
   * @param {import("../panel/settings_form.js").SettingsForm} form
   * @param {import("../tasks/tasks.js").Tasks} tasks
   */
  constructor(viewer, comparison, connection, form, tasks) {
    this.viewer = viewer;
    this.comparison = comparison;
    this.connection = connection;
    this.form = form;
    this.tasks = tasks;
    this.#button.addEventListener("click", () => this.#try());
    form.addEventListener("change", () => this.clear());
    this.#draw();
  }

  /** Another picture is shown, or other settings are chosen. */
  clear() {
    this.#trying?.abort();
    if (this.#shown && this.tasks.selected?.status !== "done") this.comparison.show(false);
    this.#shown?.remove();
    this.#shown = null;
    this.#draw();
  }

  #draw() {
    const task = this.tasks.selected;
    this.#button.hidden = !task || task.file === null || task.width === null;
    this.#button.disabled = this.#trying !== null;
    this.#button.textContent = this.#trying ? "Trying…" : "Try this spot";
  }

  async #try() {
    const task = this.tasks.selected;
    const settings = this.form.settingsFor(task);
    const { model } = this.form;
    if (!task?.file || !settings || !model) return;
    const trying = new AbortController();
    this.clear();
    this.#trying = trying;
    this.#draw();
    const started = Date.now();
    try {
      const { image, share } = await this.#cut(task, task.file);
      const factor = Math.max(1.01, Math.min(factorOf(task, settings) ?? 1, largestFactor([share.pixels], settings, model, limits()) ?? 1));
      const { signal } = trying;
      const { imageUUID } = await this.connection.request({ taskType: "imageUpload", image }, { signal });
      const { imageURL } = await this.connection.request(
        {
          taskType: "upscale",
          inputs: { image: imageUUID },
          model: settings.model,
          upscaleFactor: factor,
          outputFormat: "PNG",
          settings: Object.keys(settings.parameters).length ? settings.parameters : undefined,
          ...settings.options,
          seamless: undefined, // a spot ends where it does not meet itself
        },
        { signal },
      );
      const result = make("img", { src: `images/${nameOf(imageURL)}`, alt: "After", draggable: false });
      await result.decode();
      if (signal.aborted) return;
      this.#show(result, share);
      notify([`This spot: ${model.title} ${times(factor)}, ${duration((Date.now() - started) / 1000)}.`]);
    } catch (error) {
      if (trying.signal.aborted) return;
      notify([error instanceof TilewireError ? sentence(error.message) : "The spot could not be tried: the connection was lost."], { kind: "error" });
    } finally {
      if (this.#trying === trying) this.#trying = null;
      this.#draw();
    }
  }

  /** The middle of what is seen. @param {Task} task @param {Blob} file */
  async #cut({ width, height }, file) {
    const [whole, high] = [width ?? 1, height ?? 1];
    const { seen } = this.viewer;
    const size = { width: Math.min(whole, SIDE, Math.ceil(seen.width * whole)), height: Math.min(high, SIDE, Math.ceil(seen.height * high)) };
    const middle = { x: (seen.x + seen.width / 2) * whole, y: (seen.y + seen.height / 2) * high };
    const x = Math.round(Math.max(0, Math.min(whole - size.width, middle.x - size.width / 2)));
    const y = Math.round(Math.max(0, Math.min(high - size.height, middle.y - size.height / 2)));
    const bitmap = await createImageBitmap(file, x, y, size.width, size.height);
    const canvas = make("canvas", size);
    canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
    bitmap.close();
    const blob = /** @type {Blob} */ (await new Promise((resolve) => canvas.toBlob(resolve, "image/png")));
    const share = { left: x / whole, top: y / high, width: size.width / whole, height: size.height / high, pixels: size };
    return { image: new Uint8Array(await blob.arrayBuffer()), share };
  }

  /** @param {HTMLImageElement} result @param {{left: number, top: number, width: number, height: number}} share */
  #show(result, { left, top, width, height }) {
    result.className = "spot";
    for (const [name, value] of Object.entries({ left, top, width, height })) result.style.setProperty(name, `${value * 100}%`);
    byId("after-pixels").append(result);
    this.#shown = result;
    this.comparison.show(true);
    this.comparison.reveal();
  }
}
