/** How large a result will be and what it will cost, by the server's rules. */

/**
 * @typedef {import("./tasks.js").Settings} Settings
 * @typedef {{width: number | null, height: number | null}} Source
 *
 * @typedef {object} Model As `modelSearch` tells it.
 * @property {string} air
 * @property {string} name
 * @property {string} title
 * @property {string} comment
 * @property {number[]} upscaleFactors
 * @property {boolean} fractionalFactors
 * @property {string[]} parameters
 * @property {number} [defaultSteps] Of models that take steps; what the price is for.
 * @property {number} pricePerMegapixel In USD.
 */

/** @param {Source} source @param {Settings} settings @returns {{width: number, height: number} | null} */
export function resultSize({ width, height }, { factor, targetMegapixels }) {
  if (width === null || height === null) return null;
  const by = factor ?? Math.sqrt(((targetMegapixels ?? 0) * 1e6) / (width * height));
  return { width: Math.max(1, Math.round(width * by)), height: Math.max(1, Math.round(height * by)) };
}

/**
 * In USD, rounded up to whole microdollars.
 * @param {{width: number, height: number}} size @param {Settings} settings @param {Model} model
 */
export function price({ width, height }, { parameters }, { pricePerMegapixel, defaultSteps }) {
  const times = defaultSteps ? Math.max(1, looks(parameters, defaultSteps) / defaultSteps) : 1;
  return Math.ceil(pricePerMegapixel * width * height * times - 1e-6) / 1e6;
}

/**
 * How often a model that removes noise looks at the image.
 * @param {Record<string, any>} parameters @param {number} defaultSteps
 */
function looks(parameters, defaultSteps) {
  const { steps = defaultSteps, strength = 1, scheduler = "", CFGScale = 1 } = parameters;
  const { positivePrompt = "", negativePrompt = "" } = parameters;
  const done = Math.min(steps, Math.max(1, Math.round(steps * strength)));
  const guided = CFGScale > 1 && positivePrompt !== negativePrompt;
  return (scheduler.startsWith("Heun") ? 2 * done - 1 : done) * (guided ? 2 : 1);
}

/**
 * Why the server would refuse; null if nothing speaks against it.
 * @param {Source} source @param {Settings} settings @param {Model} model
 * @param {import("./images.js").Limits} limits
 */
export function objection(source, settings, model, { maxOutputMegapixels }) {
  const size = resultSize(source, settings);
  if (size === null || source.width === null) return null;
  const most = /** @type {number} */ (model.upscaleFactors.at(-1));
  const factor = size.width / source.width;
  if (settings.targetMegapixels !== null && factor <= 1) return "It has as many megapixels already.";
  if (settings.targetMegapixels !== null && factor > most * 1.001) return `That is more than ${most} times its sides.`;
  if (size.width * size.height > maxOutputMegapixels * 1e6) {
    return `The result would have more than ${maxOutputMegapixels} megapixels.`;
  }
  return null;
}
