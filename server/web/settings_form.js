/** What is to be made of the images. All that models offer comes from the server; choices are remembered. */

import { byId, make } from "./dom.js";
import { money } from "./format.js";
import { parameterFields, readParameters } from "./parameters.js";

/**
 * @typedef {import("./tasks.js").Settings} Settings
 * @typedef {import("./estimate.js").Model} Model
 *
 * @typedef {object} Choice
 * @property {string} model
 * @property {string} size A factor, `custom` or `megapixels`.
 * @property {number} custom
 * @property {number} megapixels
 * @property {"JPG" | "PNG" | "WEBP"} format
 * @property {number} quality
 * @property {Record<string, Record<string, any>>} parameters By model.
 */

const STORED = "tilewire.settings";

/** @type {Choice} */
const FIRST = { model: "", size: "", custom: 1.5, megapixels: 12, format: "JPG", quality: 95, parameters: {} };

/** Events: `change`. */
export class SettingsForm extends EventTarget {
  /** @type {Model[]} */ #models = [];
  /** @type {Choice} */ #choice = { ...FIRST, ...JSON.parse(localStorage.getItem(STORED) ?? "{}") };
  #select = /** @type {HTMLSelectElement} */ (byId("model"));
  #custom = /** @type {HTMLInputElement} */ (byId("custom"));
  #quality = /** @type {HTMLInputElement} */ (byId("quality"));

  constructor() {
    super();
    byId("settings").addEventListener("input", (event) => this.#take(/** @type {HTMLElement} */ (event.target)));
    byId("settings").addEventListener("submit", (event) => event.preventDefault());
  }

  /** @param {Model[]} models The first is offered first. */
  setModels(models) {
    this.#models = models;
    this.#select.replaceChildren(...models.map(({ air, title }) => make("option", { value: air }, title)));
    this.#offer();
    this.dispatchEvent(new Event("change"));
  }

  /** @returns {Model | undefined} */
  get model() {
    return this.#models.find(({ air }) => air === this.#choice.model) ?? this.#models[0];
  }

  /** @returns {Settings | null} None while the models are not known, or what is entered makes no sense. */
  get value() {
    const { model } = this;
    if (!model || !this.#custom.checkValidity()) return null;
    const { size, megapixels, format, quality } = this.#choice;
    const custom = Math.min(this.#choice.custom, most(model));
    return {
      model: model.air,
      modelTitle: model.title,
      factor: size === "megapixels" ? null : size === "custom" ? custom : Number(size),
      targetMegapixels: size === "megapixels" ? megapixels : null,
      format,
      quality,
      parameters: readParameters(model.parameters, this.#choice.parameters[model.air] ?? {}),
    };
  }

  /** @param {HTMLElement} target */
  #take(target) {
    const choice = this.#choice;
    if (!(target instanceof HTMLInputElement || target instanceof HTMLSelectElement)) return;
    const parameter = target.dataset.parameter;
    if (parameter) {
      const own = (choice.parameters[/** @type {Model} */ (this.model).air] ??= {});
      own[parameter] = target instanceof HTMLInputElement && target.type === "checkbox" ? target.checked : target.value;
    } else if (target === this.#custom) {
      if (target.checkValidity()) choice[choice.size === "megapixels" ? "megapixels" : "custom"] = Number(target.value);
    } else if (target === this.#quality) {
      choice.quality = Number(target.value);
    } else {
      Object.assign(choice, { [target.name]: target.value });
    }
    if (target === this.#select) this.#offer();
    else this.#draw();
    localStorage.setItem(STORED, JSON.stringify(choice));
    this.dispatchEvent(new Event("change"));
  }

  /** What the chosen model offers. */
  #offer() {
    const { model } = this;
    const choice = this.#choice;
    if (!model) return;
    this.#select.value = model.air;
    const price = model.pricePerMegapixel ? `${money(model.pricePerMegapixel)} per megapixel` : "Free of charge";
    byId("model-comment").textContent = `${model.comment} ${price}.`;

    /** @type {[string, string, string][]} */
    const sizes = model.upscaleFactors.map((factor) => [String(factor), `${factor}×`, `${factor} times`]);
    if (model.fractionalFactors) sizes.push(["custom", "Other", "Other factor"], ["megapixels", "MP", "Megapixels"]);
    if (!sizes.some(([value]) => value === choice.size)) choice.size = String(most(model));
    byId("sizes").replaceChildren(
      ...sizes.map(([value, text, title]) => {
        return make("label", { title }, make("input", { type: "radio", name: "size", value }), make("span", {}, text));
      }),
    );
    byId("parameters").hidden = model.parameters.length === 0;
    byId("parameter-fields").replaceChildren(
      ...parameterFields(model.parameters, choice.parameters[model.air] ?? {}),
    );
    this.#draw();
  }

  /** What is chosen. */
  #draw() {
    const { model } = this;
    const choice = this.#choice;
    if (!model) return;
    /** @type {NodeListOf<HTMLInputElement>} */
    const radios = document.querySelectorAll("#settings input[type=radio]");
    for (const radio of radios) radio.checked = radio.value === (radio.name === "size" ? choice.size : choice.format);
    byId("quality-field").hidden = choice.format === "PNG";
    this.#quality.value = byId("quality-value").textContent = String(choice.quality);
    const byMegapixels = choice.size === "megapixels";
    this.#custom.disabled = byId("custom-field").hidden = !byMegapixels && choice.size !== "custom";
    byId("custom-unit").textContent = byMegapixels ? "megapixels" : "times each side";
    if (document.activeElement === this.#custom) return; // it is being typed in
    const [least, largest] = byMegapixels ? ["0.01", "100000"] : ["1.01", String(most(model))];
    Object.assign(this.#custom, { min: least, max: largest });
    this.#custom.value = String(byMegapixels ? choice.megapixels : Math.min(choice.custom, most(model)));
    this.#custom.setAttribute("aria-label", byMegapixels ? "Megapixels of the result" : "Factor");
  }
}

/** The largest factor. @param {Model} model */
function most({ upscaleFactors }) {
  return /** @type {number} */ (upscaleFactors.at(-1));
}
