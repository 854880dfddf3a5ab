/** What is to be made of the images. All that models offer comes from the server; choices are remembered. */

import { isPriced } from "../account/account.js";
import { byId, make } from "../browser/dom.js";
import { readObject, writeObject } from "../browser/storage.js";
import { largestFactor } from "../tasks/estimate.js";
import { limits } from "../tasks/images.js";
import { money } from "../text/format.js";
import { optionFields, readOptions, redrawOptions } from "./options.js";
import { inOrder, isFirst, learnParameters, parameterFields, readParameters } from "./parameters.js";
import { sizeChoice, Sizes } from "./sizes.js";

/**
 * @typedef {import("../tasks/tasks.js").Settings} Settings
 * @typedef {import("../tasks/tasks.js").Task} Task
 * @typedef {import("../tasks/tasks.js").Format} Format
 * @typedef {import("../tasks/estimate.js").Model} Model
 *
 * @typedef {object} OwnChoice
 * @property {string} model
 * @property {Format | "INPUT"} format INPUT: as the image has it.
 * @property {number} quality
 * @property {boolean} keepMetadata
 * @property {Record<string, Record<string, any>>} parameters By model.
 * @property {Record<string, any>} options
 */

/** @typedef {OwnChoice & import("./sizes.js").Choice} Choice */

const STORED = "tilewire.settings";
const FORMATS = new Set(["INPUT", "JPG", "PNG", "WEBP"]);

/** What an earlier visit chose, as far as it makes sense. @returns {Choice} */
function remembered() {
  const { model, format, quality, keepMetadata, parameters, options, ...size } = readObject(STORED);
  const isObject = (/** @type {any} */ value) => value !== null && typeof value === "object";
  const own = isObject(parameters) ? Object.entries(parameters).filter(([, values]) => isObject(values)) : [];
  return {
    ...sizeChoice(size),
    model: String(model ?? ""),
    format: FORMATS.has(format) ? format : "INPUT",
    quality: quality >= 20 && quality <= 99 ? Math.round(quality) : 95,
    keepMetadata: keepMetadata === true,
    parameters: Object.fromEntries(own),
    options: isObject(options) ? options : {},
  };
}

/** Events: `change`. */
export class SettingsForm extends EventTarget {
  /** @type {Model[]} */ #models = [];
  /** @type {import("./options.js").Beside} */ #beside = { denoisers: [], restorers: [] };
  #choice = remembered();
  #sizes = new Sizes(this.#choice);
  #select = /** @type {HTMLSelectElement} */ (byId("model"));
  #quality = /** @type {HTMLInputElement} */ (byId("quality"));
  #metadata = /** @type {HTMLInputElement} */ (byId("metadata"));
  /** @type {Task[]} What would be made. */ #targets = [];

  constructor() {
    super();
    byId("settings").addEventListener("input", (event) => this.#take(/** @type {HTMLElement} */ (event.target)));
    byId("settings").addEventListener("submit", (event) => event.preventDefault());
    byId("size-amount").addEventListener("blur", () => this.#draw());
  }

  /** @param {Model[]} models The first is offered first. @param {import("./options.js").Beside} beside */
  async setModels(models, beside) {
    if (models.some(({ parameters }) => parameters.length)) await learnParameters();
    const known = () => [...this.#models, ...this.#beside.denoisers, ...this.#beside.restorers].map(({ air }) => air).join();
    const before = known();
    this.#models = models;
    this.#beside = beside;
    if (known() === before) return this.#draw(); // someone may be typing
    this.#select.replaceChildren(...models.map(({ air, title }) => make("option", { value: air }, title)));
    this.#offer();
    this.dispatchEvent(new Event("change"));
  }

  /** What the button would start: by it the largest factor is chosen, until the user chooses one. @param {Task[]} targets */
  setTargets(targets) {
    this.#targets = targets;
    this.#draw();
  }

  /** Whether it is known what models there are. */
  get isReady() {
    return this.#models.length > 0;
  }

  /** @returns {Model | undefined} */
  get model() {
    return this.#models.find(({ air }) => air === this.#choice.model) ?? this.#models[0];
  }

  /** @param {string} air */
  modelOf(air) {
    const { denoisers, restorers } = this.#beside;
    return [...this.#models, ...denoisers, ...restorers].find((model) => model.air === air);
  }

  /** What is chosen, for one image. @param {Task | null} task @returns {Settings | null} None while the models are not known, or what is entered makes no sense. */
  settingsFor(task) {
    const { model } = this;
    const size = model && this.#sizes.value(model, this.#automatic());
    return model && size ? { ...this.#settings(model, task), ...size } : null;
  }

  /** Choose a factor. @param {number} factor */
  useFactor(factor) {
    const whole = this.model?.upscaleFactors.includes(factor);
    Object.assign(this.#choice, whole ? { size: String(factor) } : { size: "other", way: "factor", amount: factor });
    this.#changed();
  }

  /** @param {Model} model @param {Task | null} task @returns {Settings} Without a size. */
  #settings(model, task) {
    const { format, quality, keepMetadata, parameters, options } = this.#choice;
    return {
      model: model.air,
      modelTitle: model.title,
      factor: null,
      targetMegapixels: null,
      box: null,
      format: format === "INPUT" ? (task?.format ?? "JPG") : format,
      quality,
      keepMetadata,
      parameters: readParameters(model.parameters, parameters[model.air] ?? {}),
      options: readOptions(model, options, this.#models, this.#beside),
    };
  }

  #automatic() {
    const { model } = this;
    return model ? largestFactor(this.#targets, this.#settings(model, this.#targets[0] ?? null), model, limits()) : null;
  }

  /** @param {HTMLElement} target */
  #take(target) {
    const choice = this.#choice;
    if (!(target instanceof HTMLInputElement || target instanceof HTMLSelectElement)) return;
    const { parameter, option } = target.dataset;
    const value = target instanceof HTMLInputElement && target.type === "checkbox" ? target.checked : target.value;
    const size = this.model && this.#sizes.value(this.model, this.#automatic());
    if (parameter) (choice.parameters[/** @type {Model} */ (this.model).air] ??= {})[parameter] = value;
    else if (option) choice.options[option] = value;
    else if (target === this.#quality) choice.quality = Number(value);
    else if (target === this.#metadata) choice.keepMetadata = Boolean(value);
    else if (!this.#sizes.take(target, this.#targets[0] ?? null, size ?? { factor: 2, targetMegapixels: null, box: null })) {
      Object.assign(choice, { [target.name]: value });
    }
    if (target === this.#select) this.#offer();
    this.#changed();
  }

  #changed() {
    this.#draw();
    writeObject(STORED, this.#choice);
    this.dispatchEvent(new Event("change"));
  }

  /** What the chosen model offers. */
  #offer() {
    const { model } = this;
    if (!model) return;
    this.#select.value = model.air;
    this.#sizes.offer(model);
    const values = this.#choice.parameters[model.air] ?? {};
    const names = inOrder(model.parameters);
    byId("parameters").hidden = !names.some(isFirst);
    byId("parameter-fields").replaceChildren(...parameterFields(names.filter(isFirst), values));
    byId("more-fields").replaceChildren(...parameterFields(names.filter((name) => !isFirst(name)), values));
    byId("option-fields").replaceChildren(...optionFields(model, this.#choice.options, this.#models, this.#beside));
    this.#draw();
  }

  /** What is chosen. */
  #draw() {
    const { model } = this;
    const choice = this.#choice;
    if (!model) return;
    const price = isPriced() && model.pricePerMegapixel ? ` ${money(model.pricePerMegapixel)} per megapixel.` : "";
    byId("model-comment").textContent = model.comment + price;
    this.#sizes.draw(model, this.#automatic());
    for (const radio of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("input[name=format]"))) {
      radio.checked = radio.value === choice.format;
    }
    const formats = new Set(this.#targets.map((task) => this.#settings(model, task).format));
    if (!this.#targets.length && choice.format !== "INPUT") formats.add(choice.format);
    byId("quality-field").hidden = formats.size === 1 && formats.has("PNG");
    this.#quality.value = byId("quality-value").textContent = String(choice.quality);
    this.#metadata.checked = choice.keepMetadata;
    redrawOptions(byId("option-fields"), choice.options, this.#beside);
  }
}
