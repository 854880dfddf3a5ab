/**
 * Where in the stage the picture is, and how large: zoom and pan by pointer, wheel, pinch and keyboard.
 *
 * The picture's layers have the size of the result in CSS pixels; one transform, applied once a frame, places
 * them. So moving is left to the compositor, whatever the size.
 */

const MOST = 16; // device pixels per pixel
const SETTLE = 200;

/** Events: `move`, once the transform is applied. */
export class Viewer extends EventTarget {
  #width = 1;
  #height = 1;
  #x = 0;
  #y = 0;
  #scale = 1;
  #fitted = true;
  /** Of the stage, in CSS pixels; asking the stage itself would cost a layout each time. */
  room = { width: 0, height: 0 };
  #scheduled = false;
  /** @type {number | undefined} */ #settling;

  /** @param {HTMLElement} stage @param {HTMLElement[]} layers */
  constructor(stage, layers) {
    super();
    this.stage = stage;
    this.layers = layers;
    new ResizeObserver(() => {
      this.room = { width: stage.clientWidth, height: stage.clientHeight };
      if (this.#fitted) this.fit();
      else this.#place();
    }).observe(stage);
  }

  /**
   * The picture has this size now, in pixels.
   * @param {number} width @param {number} height
   * @param {boolean} [keep] It is the same picture: what is seen stays where it is. Else it is shown whole.
   */
  setSize(width, height, keep = false) {
    if (width === this.#width && height === this.#height) return keep || this.fit();
    const same = keep && Math.abs(width / height / (this.#width / this.#height) - 1) < 0.05;
    if (same && !this.#fitted) this.#scale = Math.min(this.#largest, (this.#scale * this.#width) / width);
    [this.#width, this.#height] = [width, height];
    for (const layer of this.layers) {
      layer.style.width = `${width}px`;
      layer.style.height = `${height}px`;
    }
    if (same && !this.#fitted) this.#place();
    else this.fit();
  }

  /** CSS pixels per pixel of the result at which the whole picture is seen. */
  get #whole() {
    return Math.min(this.room.width / this.#width, this.room.height / this.#height, this.#largest);
  }

  get #largest() {
    return MOST / devicePixelRatio;
  }

  get fitted() {
    return this.#fitted;
  }

  /** Device pixels per pixel of the result. */
  get zoom() {
    return this.#scale * devicePixelRatio;
  }

  /** Pixels of the picture. */
  get size() {
    return { width: this.#width, height: this.#height };
  }

  /** The part of the picture that is seen, in shares of its sides. */
  get seen() {
    const { left, right, top, bottom } = this.visible;
    const [width, height] = [this.#width * this.#scale, this.#height * this.#scale];
    return {
      x: (left - this.#x) / width,
      y: (top - this.#y) / height,
      width: (right - left) / width,
      height: (bottom - top) / height,
    };
  }

  /** The part of the stage that shows the picture. */
  get visible() {
    return {
      left: Math.max(0, this.#x),
      right: Math.min(this.room.width, this.#x + this.#width * this.#scale),
      top: Math.max(0, this.#y),
      bottom: Math.min(this.room.height, this.#y + this.#height * this.#scale),
    };
  }

  fit() {
    this.#scale = this.#whole;
    this.#fitted = true;
    this.#place();
  }

  /** One pixel of the result on one of the screen. @param {{x: number, y: number}} [at] */
  actual(at) {
    this.zoomBy(1 / this.zoom, at);
  }

  /** @param {number} factor @param {{x: number, y: number}} [at] What stays where it is, in the stage. */
  zoomBy(factor, at = { x: this.room.width / 2, y: this.room.height / 2 }) {
    const least = Math.min(this.#whole, 1 / devicePixelRatio);
    const scale = Math.max(least, Math.min(this.#largest, this.#scale * factor));
    this.#x = at.x - ((at.x - this.#x) * scale) / this.#scale;
    this.#y = at.y - ((at.y - this.#y) * scale) / this.#scale;
    this.#scale = scale;
    this.#fitted = Math.abs(scale / this.#whole - 1) < 0.001;
    this.#place();
  }

  /** @param {number} x @param {number} y */
  panBy(x, y) {
    this.#x += x;
    this.#y += y;
    this.#place();
  }

  #place() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#x = within(this.#x, this.#width * this.#scale, this.room.width);
      this.#y = within(this.#y, this.#height * this.#scale, this.room.height);
      this.stage.classList.add("moving");
      this.stage.classList.toggle("fitted", this.#fitted);
      clearTimeout(this.#settling);
      this.#settling = setTimeout(() => this.stage.classList.remove("moving"), SETTLE);
      const transform = `translate(${this.#x}px, ${this.#y}px) scale(${this.#scale})`;
      for (const layer of this.layers) layer.style.transform = transform;
      this.dispatchEvent(new Event("move"));
    });
  }
}

/** In the middle if it fits, otherwise without a gap. @param {number} start @param {number} length @param {number} room */
function within(start, length, room) {
  return length <= room ? (room - length) / 2 : Math.max(room - length, Math.min(0, start));
}
