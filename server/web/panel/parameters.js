/**
 * The settings that a model has of its own, as fields. `modelSearch` names them; what they hold is read from the
 * server's JSON Schema of the task, so that new ones appear by themselves.
 */

import { make } from "../browser/dom.js";

/**
 * @typedef {object} Schema As far as fields need it.
 * @property {string} [type]
 * @property {number} [minimum]
 * @property {number} [exclusiveMinimum]
 * @property {number} [maximum]
 * @property {any[]} [enum]
 * @property {any} [const]
 * @property {any} [default]
 * @property {string} [description]
 * @property {Schema[]} [anyOf]
 * @property {string} [$ref]
 *
 * @typedef {object} Field
 * @property {string} label
 * @property {"number" | "text" | "checkbox" | "choice"} kind
 * @property {number} [min]
 * @property {number} [max]
 * @property {number | "any"} [step]
 * @property {string[]} [options]
 * @property {string} [hint]
 */

const LABELS = {
  positivePrompt: "Prompt",
  CFGScale: "Guidance scale",
  colorFix: "Keep colours",
  denoise: "Remove noise",
  clipSkip: "CLIP skip",
  controlNetWeight: "ControlNet weight",
};

/** What most people want to set, in this order; the others are folded away. */
const FIRST = ["positivePrompt", "strength", "denoise", "faces", "blend", "seamless"];

/** @type {Record<string, Schema>} */
let properties = {};
/** @type {Record<string, Schema>} */
let definitions = {};

/** Read what parameters there are; without it they are entered as text. */
export async function learnParameters() {
  const response = await fetch("schemas/UpscaleSettings.json").catch(() => null);
  if (!response?.ok) return;
  const schema = await response.json();
  definitions = schema.$defs ?? {};
  properties = schema.properties ?? {};
}

/** @param {string} name @returns {boolean} */
export function isFirst(name) {
  return FIRST.includes(name);
}

/** Those of most interest first. @param {string[]} names */
export function inOrder(names) {
  const place = (/** @type {string} */ name) => (isFirst(name) ? FIRST.indexOf(name) : FIRST.length);
  return [...names].sort((a, b) => place(a) - place(b));
}

/** @param {string} name @returns {Field} */
function fieldOf(name) {
  const words = name.replace(/([A-Z])/g, " $1").toLowerCase();
  const label = LABELS[/** @type {keyof typeof LABELS} */ (name)] ?? words.charAt(0).toUpperCase() + words.slice(1);
  const schema = properties[name] ?? {};
  const kinds = [schema, ...(schema.anyOf ?? [])].map((each) => (each.$ref ? (definitions[each.$ref.split("/").at(-1) ?? ""] ?? {}) : each));
  const field = { label, hint: schema.description };
  const choice = kinds.find((each) => each.enum?.every((value) => typeof value === "string"));
  if (choice) return { ...field, kind: "choice", options: choice.enum };
  if (kinds.some(({ type }) => type === "boolean")) return { ...field, kind: "checkbox" };
  const numeric = kinds.find(({ type }) => type === "number" || type === "integer");
  if (!numeric) return { ...field, kind: "text" };
  const { type, minimum, exclusiveMinimum, maximum } = numeric;
  const min = minimum ?? exclusiveMinimum;
  return { ...field, kind: "number", min, max: maximum, step: type === "integer" ? 1 : "any" };
}

/** @param {string[]} names @param {Record<string, any>} values @returns {HTMLElement[]} */
export function parameterFields(names, values) {
  return names.map((name) => {
    const { label, kind, min, max, step = "any", options = [], hint = "" } = fieldOf(name);
    const data = { parameter: name };
    const title = hint.replaceAll("`", "");
    if (kind === "checkbox") {
      const box = make("input", { type: "checkbox", checked: values[name] ?? false, data });
      return make("label", { className: "check", title }, box, make("span", {}, label));
    }
    if (kind === "choice") {
      const offered = [make("option", { value: "" }, "Default"), ...options.map((value) => make("option", { value }, value))];
      const select = make("select", { data }, ...offered);
      select.value = values[name] ?? "";
      return make("label", { className: "row", title }, make("span", {}, label), select);
    }
    const bounds = kind === "number" ? { min: min ?? "", max: max ?? "", step } : {};
    const wide = kind === "text" ? "stacked" : "row";
    const input = make("input", { type: kind, ...bounds, value: values[name] ?? "", placeholder: "Default", data });
    return make("label", { className: wide, title }, make("span", {}, label), input);
  });
}

/**
 * What is sent: numbers as numbers, and nothing of what was left empty or makes no sense.
 * @param {string[]} names @param {Record<string, any>} values @returns {Record<string, any>}
 */
export function readParameters(names, values) {
  const given = names.filter((name) => values[name] !== undefined && values[name] !== "" && values[name] !== false);
  return Object.fromEntries(
    given.map((name) => [name, fieldOf(name).kind === "number" ? Number(values[name]) : values[name]]),
  );
}
