/** What a task may ask for beside the model's own settings: less noise, new faces, no seams, a second model. */

import { make } from "../browser/dom.js";
import { percent } from "../text/format.js";

/**
 * @typedef {import("../tasks/estimate.js").Model} Model
 *
 * @typedef {object} Options As tasks have them on the wire.
 * @property {"x" | "y" | "both"} [seamless]
 * @property {8} [tta]
 * @property {{model: string, visibility: number}} [blend]
 * @property {boolean} [checkNSFW]
 * @property {{action: "refuse"}} [safety]
 * @property {{model: string, strength: number}} [denoise]
 * @property {{model: string, visibility: number, weight?: number}} [faceRestoration]
 *
 * @typedef {object} Beside Models that work beside any upscaler.
 * @property {Model[]} denoisers
 * @property {Model[]} restorers
 */

const SEAMS = { "": "None", x: "Left and right meet", y: "Top and bottom meet", both: "All edges meet" };
const SAFETY = { "": "Do not check", flag: "Flag", refuse: "Refuse, at no cost" };
const VISIBILITY = 0.5;
const MOST_NOISE = 75;
const FACES = { faceVisibility: 1, faceWeight: 0.5 };

/**
 * The fields of what a model offers.
 * @param {Model} model @param {Record<string, any>} values What was chosen before. @param {Model[]} models @param {Beside} beside
 * @returns {HTMLElement[]}
 */
export function optionFields(model, values, models, beside) {
  const offered = model.options ?? [];
  const fields = [];
  if (offered.includes("denoise")) {
    const title = "Removes noise before the picture is enlarged: its standard deviation in levels of 255, 0 to 75. Too much removes texture as well";
    const bounds = { min: "0", max: String(MOST_NOISE), step: "any" };
    fields.push(row("Noise to remove", title, make("input", { type: "number", ...bounds, value: values.noise ?? "", placeholder: "None", data: { option: "noise" } })));
  }
  if (offered.includes("faceRestoration")) {
    const restorers = Object.fromEntries(beside.restorers.map(({ air, title }) => [air, title]));
    const title = "Redraws the faces in the picture; a restored face is a likely one, not the person's";
    fields.push(field("Restore faces", title, choice("faces", { "": "No", ...restorers }, values.faces)));
    fields.push(share("faceVisibility", "Visible", "How visible the restored faces are", FACES.faceVisibility, values));
    fields.push(share("faceWeight", "Like the input", "0: the finest face; 1: the one most similar to the input", FACES.faceWeight, values));
  }
  if (offered.includes("seamless")) {
    const title = "For textures and panoramas: no seam shows when they are placed side by side";
    fields.push(field("Edges", title, choice("seamless", SEAMS, values.seamless)));
  }
  if (offered.includes("blend")) {
    const others = models.filter(({ air }) => air !== model.air).map(({ air, title }) => [air, title]);
    const second = choice("blend", { "": "None", ...Object.fromEntries(others) }, values.blend);
    fields.push(field("Second model", "Its result is mixed into that of the first; both are charged", second));
    const label = share("visibility", "Its share", "The share of the second model's result", VISIBILITY, values);
    label.hidden = !second.value;
    fields.push(label);
  }
  if (offered.includes("tta")) {
    const title = "Averages over the picture's eight flips and rotations: a little better, for eight times the work and price";
    fields.push(check("tta", "Eight looks (8 times the work)", title, values.tta));
  }
  if (offered.includes("checkNSFW")) {
    const title = "Checks the picture and its result, and flags or refuses unsafe ones";
    fields.push(field("What is not safe for work", title, choice("safety", SAFETY, values.safety)));
  }
  return fields;
}

/** Show what depends on a choice that was made just now. @param {HTMLElement} fields @param {Record<string, any>} values @param {Beside} beside */
export function redrawOptions(fields, values, beside) {
  const visible = { visibility: Boolean(values.blend), ...facesShown(values, beside) };
  const defaults = { visibility: VISIBILITY, ...FACES };
  for (const [name, isShown] of Object.entries(visible)) {
    const shown = fields.querySelector(`[data-shows=${name}]`);
    if (!shown) continue;
    shown.textContent = percent(values[name] ?? defaults[/** @type {keyof typeof defaults} */ (name)]);
    /** @type {HTMLElement} */ (shown.closest("label")).hidden = !isShown;
  }
}

/** Which fields about faces make a difference. @param {Record<string, any>} values @param {Beside} beside */
function facesShown(values, { restorers }) {
  const restorer = restorers.find(({ air }) => air === values.faces);
  return { faceVisibility: restorer !== undefined, faceWeight: restorer?.parameters.includes("weight") ?? false };
}

/**
 * What is sent, of what was chosen: what the model offers, and what makes a difference.
 * @param {Model} model @param {Record<string, any>} values @param {Model[]} models @param {Beside} beside @returns {Options}
 */
export function readOptions(model, values, models, beside) {
  const offered = model.options ?? [];
  /** @type {Options} */
  const options = {};
  if (offered.includes("seamless") && values.seamless in SEAMS && values.seamless) options.seamless = values.seamless;
  if (offered.includes("tta") && values.tta === true) options.tta = 8;
  if (offered.includes("checkNSFW") && values.safety === "flag") options.checkNSFW = true;
  if (offered.includes("checkNSFW") && values.safety === "refuse") options.safety = { action: "refuse" };
  const visibility = Number(values.visibility ?? VISIBILITY);
  const second = models.find(({ air }) => air === values.blend && air !== model.air);
  if (offered.includes("blend") && second && visibility > 0) options.blend = { model: second.air, visibility };
  const [denoiser] = beside.denoisers;
  const strength = Math.min(Number(values.noise) || 0, MOST_NOISE);
  if (offered.includes("denoise") && denoiser && strength > 0) options.denoise = { model: denoiser.air, strength };
  const faces = { ...FACES, ...values };
  const shown = facesShown(values, beside);
  if (offered.includes("faceRestoration") && shown.faceVisibility && Number(faces.faceVisibility) > 0) {
    const weight = shown.faceWeight ? { weight: Number(faces.faceWeight) } : {};
    options.faceRestoration = { model: values.faces, visibility: Number(faces.faceVisibility), ...weight };
  }
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

/** @param {string} label @param {string} title @param {HTMLElement} input */
function row(label, title, input) {
  return make("label", { className: "row", title }, make("span", {}, label), input);
}

/** A part from 0 to 1. @param {string} option @param {string} label @param {string} title @param {number} otherwise @param {Record<string, any>} values */
function share(option, label, title, otherwise, values) {
  const value = values[option] ?? otherwise;
  const range = make("input", { type: "range", min: "0", max: "1", step: "0.05", value: String(value), data: { option } });
  const shown = make("output", { data: { shows: option } }, percent(value));
  const field = make("label", { className: "row", title });
  field.append(make("span", {}, `${label} `, shown), range);
  return field;
}
