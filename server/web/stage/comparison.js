/** The line between before and after: dragged, or moved by keys. */

import { percent } from "../text/format.js";

const STEP = 0.02;

export class Comparison {
  #share = 0.5;
  #shown = false;
  #covered = false;

  /**
   * @param {import("./viewer.js").Viewer} viewer
   * @param {HTMLElement} handle
   * @param {HTMLElement} before The layer that is seen to the left of the line.
   * @param {HTMLElement} after The layer that is seen to its right.
   */
  constructor(viewer, handle, before, after) {
    this.before = before;
    this.viewer = viewer;
    this.handle = handle;
    this.after = after;
    viewer.addEventListener("move", () => this.#draw());
    handle.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      handle.setPointerCapture(event.pointerId);
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const { left, right } = viewer.visible;
      const x = event.clientX - viewer.stage.getBoundingClientRect().left;
      this.#set((x - left) / (right - left));
    });
    handle.addEventListener("keydown", (event) => {
      const to = {
        ArrowLeft: this.#share - STEP,
        ArrowDown: this.#share - STEP,
        ArrowRight: this.#share + STEP,
        ArrowUp: this.#share + STEP,
        PageDown: this.#share - 5 * STEP,
        PageUp: this.#share + 5 * STEP,
        Home: 0,
        End: 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.#set(to);
    });
  }

  /**
   * @param {boolean} shown Without it all of the after layer is seen.
   * @param {boolean} [covered] Whether after has all of the picture: then nothing of before shows through it.
   */
  show(shown, covered = false) {
    this.#covered = covered;
    if (shown && !this.#shown) this.#share = 0.5;
    this.#shown = shown;
    this.handle.hidden = !shown;
    this.#draw();
  }

  /** Show all of what is after the line. */
  reveal() {
    this.#set(0);
  }

  /** Name the two sides. @param {string} before @param {string} after */
  name(before, after) {
    const [left, right] = this.handle.querySelectorAll(".tag");
    left.textContent = before;
    right.textContent = after;
    this.handle.setAttribute("aria-label", `Comparison of ${before.toLowerCase()} and ${after.toLowerCase()}`);
  }

  /** @param {number} share */
  #set(share) {
    this.#share = Math.max(0, Math.min(1, share));
    this.#draw();
  }

  #draw() {
    const { left, right, top, bottom } = this.viewer.visible;
    const x = left + this.#share * (right - left);
    this.after.style.clipPath = this.#shown ? `inset(0 0 0 ${x}px)` : "none";
    this.before.style.clipPath = this.#shown && this.#covered ? `inset(0 ${this.viewer.room.width - x}px 0 0)` : "none";
    this.handle.style.transform = `translateX(${x}px)`;
    this.handle.style.top = `${top}px`;
    this.handle.style.height = `${Math.max(0, bottom - top)}px`;
    this.handle.setAttribute("aria-valuenow", String(Math.round(this.#share * 100)));
    this.handle.setAttribute("aria-valuetext", `${percent(this.#share)} before`);
  }
}
