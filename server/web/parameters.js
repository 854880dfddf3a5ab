/** The settings that a model has of its own, as fields. The server names them; here is how they are entered. */

import { make } from "./dom.js";

/** @typedef {{label: string, type: "number" | "text" | "checkbox", min?: number, max?: number, step?: number}} Field */

/** @type {Record<string, Field>} Others are entered as text. */
const KNOWN = {
  positivePrompt: { label: "Prompt", type: "text" },
  negativePrompt: { label: "Negative prompt", type: "text" },
  steps: { label: "Steps", type: "number", min: 1, step: 1 },
  seed: { label: "Seed", type: "number", min: 0, step: 1 },
  CFGScale: { label: "Guidance scale", type: "number", min: 0, step: 0.1 },
  strength: { label: "Strength", type: "number", min: 0, max: 1, step: 0.05 },
  controlNetWeight: { label: "ControlNet weight", type: "number", min: 0, step: 0.05 },
  clipSkip: { label: "CLIP skip", type: "number", min: 0, step: 1 },
  scheduler: { label: "Scheduler", type: "text" },
  colorFix: { label: "Keep colours", type: "checkbox" },
  denoise: { label: "Remove noise", type: "number", min: 0, max: 3, step: 1 },
  tileDiffusion: { label: "Tiled diffusion", type: "checkbox" },
};

/** @param {string} name @returns {Field} */
function field(name) {
  return KNOWN[name] ?? { label: name, type: "text" };
}

/** @param {string[]} names @param {Record<string, any>} values @returns {HTMLElement[]} */
export function parameterFields(names, values) {
  return names.map((name) => {
    const { label, type, min = "", max = "", step = "any" } = field(name);
    const properties = { type, min, max, step, data: { parameter: name } };
    if (type === "checkbox") {
      const box = make("input", { type, checked: values[name] ?? false, data: { parameter: name } });
      return make("label", { className: "check" }, box, make("span", {}, label));
    }
    const input = make("input", { ...properties, value: values[name] ?? "", placeholder: "default" });
    return make("label", { className: "row" }, make("span", {}, label), input);
  });
}

/**
 * What is sent: numbers as numbers, and nothing of what was left empty.
 * @param {string[]} names @param {Record<string, any>} values @returns {Record<string, any>}
 */
export function readParameters(names, values) {
  const given = names.filter((name) => values[name] !== undefined && values[name] !== "");
  return Object.fromEntries(
    given.map((name) => [name, field(name).type === "number" ? Number(values[name]) : values[name]]),
  );
}
