/** What a task may ask for beside the model's own settings: no seams, the mean of flips and turns, a second model. */

import { make } from "../parts/dom.js";
import { percent } from "../parts/format.js";

/**
 * @typedef {import("../tasks/estimate.js").Model} Model
 *
 * @typedef {object} Options As tasks have them on the wire.
 * @property {"x" | "y" | "both"} [seamless]
 * @property {8} [tta]
 * @property {{model: string, visibility: number}} [blend]
 * @property {boolean} [checkNSFW]
 */

const SEAMS = { "": "As it is", x: "Left and right meet", y: "Top and bottom meet", both: "All edges meet" };
const VISIBILITY = 0.5;

/**
 * The fields of what a model offers.
 * @param {Model} model @param {Record<string, any>} values What was chosen before. @param {Model[]} models
 * @returns {HTMLElement[]}
 */
export function optionFields(model, values, models) {
  const offered = model.options ?? [];
  const fields = [];
  if (offered.includes("seamless")) {
    const title = "For textures and panoramas that are laid side by side: no seam shows between them";
    fields.push(field("Edges", title, choice("seamless", SEAMS, values.seamless)));
  }
  if (offered.includes("blend")) {
    const others = models.filter(({ air }) => air !== model.air).map(({ air, title }) => [air, title]);
    const second = choice("blend", { "": "None", ...Object.fromEntries(others) }, values.blend);
    fields.push(field("Second model", "Its result is laid over that of the first; both are paid for", second));
    const { visibility = VISIBILITY } = values;
    const range = make("input", { type: "range", min: "0", max: "1", step: "0.05", value: String(visibility), data: { option: "visibility" } });
    const shown = make("output", { data: { shows: "visibility" } }, percent(visibility));
    const label = make("label", { className: "row", title: "How much of the second model's result is seen" });
    label.append(make("span", {}, "Visible of it ", shown), range);
    label.hidden = !second.value;
    fields.push(label);
  }
  if (offered.includes("tta")) {
    const title = "The mean of the picture's eight flips and turns: a little better, for eight times the work and price";
    fields.push(check("tta", "Eight looks (8 times the work)", title, values.tta));
  }
  if (offered.includes("checkNSFW")) {
    const title = "Says of results whether they may not be safe for work";
    fields.push(check("checkNSFW", "Look for what is not safe for work", title, values.checkNSFW));
  }
  return fields;
}

/** Show what depends on a choice that was made just now. @param {HTMLElement} fields @param {Record<string, any>} values */
export function redrawOptions(fields, values) {
  const shown = fields.querySelector("[data-shows=visibility]");
  if (!shown) return;
  shown.textContent = percent(values.visibility ?? VISIBILITY);
  /** @type {HTMLElement} */ (shown.closest("label")).hidden = !values.blend;
}

/**
 * What is sent, of what was chosen: what the model offers, and what makes a difference.
 * @param {Model} model @param {Record<string, any>} values @param {Model[]} models @returns {Options}
 */
export function readOptions(model, values, models) {
  const offered = model.options ?? [];
  /** @type {Options} */
  const options = {};
  if (offered.includes("seamless") && values.seamless in SEAMS && values.seamless) options.seamless = values.seamless;
  if (offered.includes("tta") && values.tta === true) options.tta = 8;
  if (offered.includes("checkNSFW") && values.checkNSFW === true) options.checkNSFW = true;
  const visibility = Number(values.visibility ?? VISIBILITY);
  const second = models.find(({ air }) => air === values.blend && air !== model.air);
  if (offered.includes("blend") && second && visibility > 0) options.blend = { model: second.air, visibility };
  return options;
}

/** @param {string} option @param {string} label @param {string} title @param {boolean | undefined} checked */
function check(option, label, title, checked) {
  const box = make("input", { type: "checkbox", checked: checked === true, data: { option } });
  return make("label", { className: "check", title }, box, make("span", {}, label));
}

/** @param {string} option @param {Record<string, string>} choices @param {string | undefined} chosen */
function choice(option, choices, chosen) {
  const select = make("select", { data: { option } }, ...Object.entries(choices).map(([value, text]) => make("option", { value }, text)));
  select.value = chosen !== undefined && chosen in choices ? chosen : "";
  return select;
}

/** @param {string} label @param {string} title @param {HTMLElement} input */
function field(label, title, input) {
  return make("label", { className: "stacked", title }, make("span", {}, label), input);
}
