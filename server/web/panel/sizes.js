/** How large the result is to be: a whole factor, or one of the ways to name another size. */

import { byId, make } from "../browser/dom.js";
import { most, reach, resultSize } from "../tasks/estimate.js";

/**
 * @typedef {import("../tasks/tasks.js").Task} Task
 * @typedef {import("../tasks/estimate.js").Model} Model
 *
 * @typedef {"factor" | "megapixels" | "width" | "height" | "exact" | "4k"} Way
 * @typedef {import("../tasks/tasks.js").ResizeMode} ResizeMode
 * @typedef {{factor: number | null, targetMegapixels: number | null,
 *   box: import("../tasks/tasks.js").Box | null}} Size As settings have it.
 *
 * @typedef {object} Choice
 * @property {string} size A factor, `other`, or empty: the largest that suits.
 * @property {Way} way
 * @property {number} amount
 * @property {number} second The height, beside an exact width.
 * @property {ResizeMode} mode What both together mean.
 */

/** @type {Record<Way, {label: string, least: number, most: number, whole: boolean}>} */
const WAYS = {
  factor: { label: "Factor", least: 1, most: 16, whole: false },
  megapixels: { label: "Megapixels", least: 0.01, most: 100_000, whole: false },
  width: { label: "Width in pixels", least: 1, most: 1_000_000, whole: true },
  height: { label: "Height in pixels", least: 1, most: 1_000_000, whole: true },
  exact: { label: "Width and height", least: 1, most: 1_000_000, whole: true },
  "4k": { label: "Fit 4K (3840 × 2160)", least: 1, most: 1, whole: true },
};
const FOUR_K = { width: 3840, height: 2160 };
/** @type {Record<ResizeMode, string>} */
const MODES = { crop: "Crop", fit: "Fit within", fill: "Cover", stretch: "Stretch" };

/** @param {any} kept What an earlier visit chose. @returns {Choice} */
export function sizeChoice({ size, way, amount, second, mode }) {
  return {
    size: typeof size === "string" ? size : "",
    way: way in WAYS ? way : "factor",
    amount: typeof amount === "number" && amount > 0 ? amount : 2,
    second: Number.isInteger(second) && second > 0 ? second : 2000,
    mode: mode in MODES ? mode : "crop",
  };
}

export class Sizes {
  #way = /** @type {HTMLSelectElement} */ (byId("size-way"));
  #amount = /** @type {HTMLInputElement} */ (byId("size-amount"));
  #second = /** @type {HTMLInputElement} */ (byId("size-second"));
  #mode = /** @type {HTMLSelectElement} */ (byId("size-mode"));
  #wrong = "";

  /** @param {Choice} choice */
  constructor(choice) {
    this.choice = choice;
    const ways = Object.entries(WAYS).map(([value, { label }]) => make("option", { value }, label));
    this.#way.replaceChildren(...ways);
    this.#mode.replaceChildren(...Object.entries(MODES).map(([value, label]) => make("option", { value }, label)));
  }

  /** What a model offers. @param {Model} model */
  offer(model) {
    /** @type {[string, string, string][]} */
    const sizes = model.upscaleFactors.map((factor) => [String(factor), `${factor}×`, `${factor} times each side`]);
    if (model.fractionalFactors) sizes.push(["other", "Other", "Another factor, megapixels, width or height"]);
    if (!sizes.some(([value]) => value === this.choice.size)) this.choice.size = "";
    byId("sizes").replaceChildren(
      ...sizes.map(([value, text, title]) => {
        return make("label", { title }, make("input", { type: "radio", name: "size", value }), make("span", {}, text));
      }),
    );
  }

  /**
   * Take what was entered.
   * @param {HTMLElement} target @param {Task | null} task What is selected: other sizes start from its own.
   * @param {Size} size As it was.
   * @returns {boolean} Whether it is of this part of the form.
   */
  take(target, task, size) {
    const { choice } = this;
    if (target instanceof HTMLInputElement && target.name === "size") {
      if (target.value === "other") this.#start(task, size);
      choice.size = target.value;
    } else if (target === this.#way) {
      choice.way = /** @type {Way} */ (this.#way.value);
      this.#start(task, size);
    } else if (target === this.#amount) {
      const { valueAsNumber } = this.#amount;
      if (this.#amount.checkValidity() && valueAsNumber > 0) choice.amount = valueAsNumber;
    } else if (target === this.#second) {
      if (this.#second.checkValidity()) choice.second = this.#second.valueAsNumber;
    } else if (target === this.#mode) {
      choice.mode = /** @type {ResizeMode} */ (this.#mode.value);
    } else return false;
    return true;
  }

  /** Begin with what it would be so far. @param {Task | null} task @param {Size} size */
  #start(task, size) {
    const { choice } = this;
    const now = task && resultSize(task, /** @type {any} */ (size));
    if (choice.way === "factor") choice.amount = size.factor ?? (now && task?.width ? now.width / task.width : 2);
    else if (now && choice.way === "megapixels") choice.amount = (now.width * now.height) / 1e6;
    else if (now && choice.way === "exact") [choice.amount, choice.second] = [now.width, now.height];
    else if (now && choice.way !== "4k" && choice.way !== "exact") choice.amount = now[choice.way];
    else choice.amount = { megapixels: 12, width: 3000, height: 2000, exact: 3000, "4k": 1 }[choice.way];
    choice.amount = Number(choice.amount.toPrecision(4));
  }

  /** @param {Model} model @param {number | null} automatic The largest factor that suits. @returns {Size | null} Null if it makes no sense. */
  value(model, automatic) {
    const { size, way, amount, second, mode } = this.choice;
    const none = { factor: null, targetMegapixels: null, box: null };
    if (size !== "other") return { ...none, factor: Number(size) || (automatic ?? most(model)) };
    if (this.#wrong) return null;
    if (way === "factor") return { ...none, factor: Math.min(amount, reach(model)) };
    if (way === "megapixels") return { ...none, targetMegapixels: amount };
    if (way === "exact") return { ...none, box: { width: amount, height: second, mode } };
    return { ...none, box: way === "4k" ? FOUR_K : { width: null, height: null, [way]: amount } };
  }

  /** Show what is chosen. @param {Model} model @param {number | null} automatic */
  draw(model, automatic) {
    const { size, way, amount, second, mode } = this.choice;
    const chosen = size || String(automatic ?? most(model));
    for (const radio of /** @type {NodeListOf<HTMLInputElement>} */ (byId("sizes").querySelectorAll("input"))) {
      radio.checked = radio.value === chosen;
    }
    const other = size === "other";
    byId("size-other").hidden = !other;
    byId("size-exact").hidden = !other || way !== "exact";
    this.#wrong = "";
    if (other) {
      const { label, least, most: largest, whole } = WAYS[way];
      this.#way.value = way;
      this.#amount.hidden = way === "4k";
      const bounds = { min: least, max: way === "factor" ? reach(model) : largest, step: whole ? 1 : "any" };
      Object.assign(this.#amount, bounds);
      this.#amount.setAttribute("aria-label", way === "exact" ? "Width in pixels" : label);
      this.#mode.value = mode;
      if (document.activeElement !== this.#second) this.#second.value = String(second);
      if (document.activeElement !== this.#amount) this.#amount.value = String(Math.min(amount, bounds.max));
      const inputs = { "4k": [], exact: [this.#amount, this.#second] }[/** @type {string} */ (way)] ?? [this.#amount];
      if (!inputs.every((input) => input.value && input.checkValidity())) {
        const number = whole ? "a whole number" : "a number";
        this.#wrong = `Enter ${number} from ${least} to ${bounds.max}.`;
      }
    }
    byId("size-error").textContent = this.#wrong;
    byId("size-error").hidden = !this.#wrong;
    this.#amount.setAttribute("aria-invalid", String(Boolean(this.#wrong)));
  }
}
