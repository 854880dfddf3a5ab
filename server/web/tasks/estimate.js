/** How large a result will be, what it will cost and how long it will take, by the server's rules. */

/**
 * @typedef {import("./tasks.js").Settings} Settings
 * @typedef {import("./tasks.js").Task} Task
 * @typedef {{width: number | null, height: number | null}} Source
 * @typedef {{width: number, height: number}} Size
 *
 * @typedef {{side: number, overlap: number, multiple: number, cell: number}} Windows In pixels.
 *
 * @typedef {object} Model As `modelSearch` describes it.
 * @property {string} air
 * @property {string} name
 * @property {string} title
 * @property {string} comment
 * @property {number[]} upscaleFactors
 * @property {boolean} fractionalFactors
 * @property {string[]} parameters
 * @property {string[]} [options] Beside these, what not all models take.
 * @property {number} [defaultSteps] Of models that take steps; what the price is for.
 * @property {number} [strengthSteps] Of models that draft before a strength below 1: their steps then.
 * @property {Record<string, Record<string, number>>} [presets] Of creative upscalers: what settings are by default.
 * @property {Windows} [windows] Of creative upscalers: what images are drawn in.
 * @property {string} [enlarger] Of creative upscalers: the model that enlarges before they draw, by default.
 * @property {number} pricePerMegapixel In USD.
 * @property {number} [secondsPerMegapixel] What it took of late, for anybody.
 */

const MOST_SIDE = { JPG: 65_500, PNG: Infinity, WEBP: 16_383 };

/** @param {Source} source @param {Settings} settings Null if the browser cannot tell. @returns {number | null} */
export function factorOf({ width, height }, { factor, targetMegapixels, box }) {
  if (factor !== null) return factor;
  if (width === null || height === null) return null;
  if (targetMegapixels !== null) return Math.sqrt((targetMegapixels * 1e6) / (width * height));
  const sides = [(box?.width ?? Infinity) / width, (box?.height ?? Infinity) / height];
  return (box?.mode ?? "fit") === "fit" ? Math.min(...sides) : Math.max(...sides);
}

/** @param {Source} source @param {Settings} settings @returns {{width: number, height: number} | null} */
export function resultSize(source, settings) {
  const factor = factorOf(source, settings);
  if (source.width === null || source.height === null || factor === null) return null;
  const { box } = settings;
  if (box?.width && box.height && (box.mode === "crop" || box.mode === "stretch")) return { width: box.width, height: box.height };
  const side = (/** @type {number} */ length) => Math.max(1, Math.round(length * factor));
  return { width: side(source.width), height: side(source.height) };
}

/** What a model that works beside upscalers costs, in USD. @param {Size} size Of what it sees. @param {Model} model */
export function priceBeside({ width, height }, { pricePerMegapixel }) {
  return Math.ceil(pricePerMegapixel * width * height - 1e-6) / 1e6;
}

/**
 * In USD, rounded up to whole microdollars.
 * @param {Size} size Of the result. @param {Source} source @param {Settings} settings @param {Model} model
 */
export function price({ width, height }, source, settings, model) {
  return Math.ceil(model.pricePerMegapixel * width * height * effort(source, settings, model) - 1e-6) / 1e6;
}

/**
 * How many times the work that a model's price is for.
 * @param {Source} source @param {Settings} settings @param {Model} model
 */
export function effort(source, settings, { air, defaultSteps, strengthSteps, presets, windows, upscaleFactors }) {
  const own = air === settings.model ? settings.parameters : {}; // a second model has its defaults
  const times = settings.options?.tta ?? 1;
  if (!presets || !defaultSteps) {
    const passed = passes(source, resultSize(source, settings), /** @type {number} */ (upscaleFactors.at(-1)));
    if (!defaultSteps) return times * passed;
    const drafts = strengthSteps && own.strength < 1; // in one step
    const all = looks(own, drafts ? strengthSteps : defaultSteps) + (drafts ? 1 : 0);
    return Math.max(1, all / defaultSteps) * times * passed;
  }
  const turned = { ...presets[own.preset ?? "balanced"], ...own };
  const usual = looksAtPass({}, presets.balanced, 0, defaultSteps);
  const size = resultSize(source, settings) ?? { width: 1, height: 1 }; // unknown: as if it were drawn once
  const sizes = sizesOf(source, size, 2);
  const { width = null, height = null } = source;
  if (width !== null && height !== null) sizes.unshift(...Array(turned.refinementSteps).fill({ width, height }));
  const seamless = settings.options?.seamless;
  const drawn = sizes.reduce((sum, each, number) => {
    const pixels = windows && width !== null ? inWindows(each, windows, turned.fractality, seamless) : each.width * each.height;
    return sum + pixels * looksAtPass(own, turned, number, defaultSteps);
  }, 0);
  return (drawn / (size.width * size.height) / usual) * times;
}

/**
 * The pixels of what each pass makes, as times those of the result.
 * @param {Source} source @param {Size | null} size @param {number} scale By how much a pass enlarges at most.
 */
function passes(source, size, scale) {
  if (size === null) return 1;
  const pixels = sizesOf(source, size, scale).reduce((sum, { width, height }) => sum + width * height, 0);
  return pixels / (size.width * size.height);
}

/**
 * The size after each pass: `sizes_of_passes` of the server.
 * @param {Source} source @param {Size} size @param {number} scale @returns {Size[]}
 */
function sizesOf({ width, height }, size, scale) {
  const sizes = [size];
  if (width === null || height === null) return sizes;
  while (sizes[0].width > scale * width || sizes[0].height > scale * height) {
    const half = (/** @type {number} */ least, /** @type {number} */ side) => Math.max(least, Math.ceil(side / scale));
    sizes.unshift({ width: half(width, sizes[0].width), height: half(height, sizes[0].height) });
  }
  return sizes;
}

/**
 * The pixels of all windows that an image is drawn in: `windows_over` of the engine.
 * @param {Size} size @param {Windows} windows @param {number} fractality @param {"x" | "y" | "both"} [seamless]
 */
function inWindows({ width, height }, { side, overlap, multiple, cell }, fractality, seamless) {
  const wanted = Math.round(side * 2 ** ((50 - fractality) / 50));
  const shared = Math.floor(Math.floor((wanted * overlap) / side) / cell) * cell;
  const largest = Math.max(2 * multiple, Math.floor(wanted / multiple) * multiple);
  const step = Math.max(multiple, 64); // both are powers of two
  const along = (/** @type {number} */ pixels, /** @type {boolean} */ ring) => {
    const length = Math.max(2 * multiple, Math.ceil(pixels / multiple) * multiple);
    if (length <= largest) return length * (ring ? 2 : 1);
    const count = (/** @type {number} */ each) => Math.ceil((ring ? length : length - shared) / (each - shared));
    const most = count(largest);
    const overlaps = ring ? most : most - 1;
    const each = Math.min(largest, Math.ceil((length + overlaps * shared) / most / step) * step);
    return count(each) * each;
  };
  return along(height, seamless === "y" || seamless === "both") * along(width, seamless === "x" || seamless === "both");
}

/**
 * How often a creative upscaler looks at each pixel of a window in a pass.
 * @param {Record<string, any>} parameters @param {Record<string, number>} turned @param {number} number Of the pass.
 * @param {number} defaultSteps
 */
function looksAtPass(parameters, turned, number, defaultSteps) {
  const { strength = turned.creativity / 100, CFGScale = 1 + 0.12 * turned.promptFidelity } = parameters;
  const kept = (turned.creativityDecay / 100) ** number;
  const prompts = { positivePrompt: "a", negativePrompt: "" }; // even equal ones are guided
  return looks({ ...parameters, ...prompts, strength: strength * kept, CFGScale }, defaultSteps);
}

/**
 * How often a model that removes noise looks at the image.
 * @param {Record<string, any>} parameters @param {number} defaultSteps
 */
function looks(parameters, defaultSteps) {
  const { steps = defaultSteps, strength = 1, scheduler = "", CFGScale = 1 } = parameters;
  const { positivePrompt = "", negativePrompt = "" } = parameters;
  const done = Math.min(steps, Math.max(1, Math.floor(steps * strength)));
  const guided = CFGScale > 1 && positivePrompt !== negativePrompt;
  return (scheduler.startsWith("Heun") ? 2 * done - 1 : done) * (guided ? 2 : 1);
}

const LARGEST = 16; // of the server, for models that take any factor

/** The largest factor there is, maybe in several passes. @param {Model} model */
export function reach(model) {
  return model.fractionalFactors ? LARGEST : most(model);
}

/** The largest factor of its own. @param {Model} model */
export function most({ upscaleFactors }) {
  return /** @type {number} */ (upscaleFactors.at(-1));
}

/**
 * Why the server would refuse; null if nothing speaks against it.
 * @param {Source} source @param {Settings} settings @param {Model} model
 * @param {import("./images.js").Limits} limits
 */
export function objection(source, settings, model, { maxOutputMegapixels }) {
  const size = resultSize(source, settings);
  const factor = factorOf(source, settings);
  if (size === null || factor === null) return null;
  const pixels = `${size.width} × ${size.height} pixels`;
  const least = settings.box?.mode === "stretch" ? Math.min(size.width / (source.width ?? 1), size.height / (source.height ?? 1)) : factor;
  if (settings.factor === null && least < 1) return "it is larger already";
  if (settings.factor === null && factor > reach(model) * 1.001) return `that is more than ${reach(model)} times its sides`;
  if (size.width * size.height > maxOutputMegapixels * 1e6) {
    return `${pixels} are more than the ${maxOutputMegapixels} megapixels that this server makes`;
  }
  const side = MOST_SIDE[settings.format];
  if (Math.max(size.width, size.height) > side) return `${pixels} are more than the format holds (${side} a side)`;
  return null;
}

/**
 * The largest factor that suits all of these; null if there is none.
 * @param {Source[]} sources @param {Settings} settings @param {Model} model
 * @param {import("./images.js").Limits} limits
 */
export function largestFactor(sources, settings, model, limits) {
  const suits = (/** @type {number} */ factor) => {
    const wanted = { ...settings, factor, targetMegapixels: null, box: null };
    return sources.every((source) => objection(source, wanted, model, limits) === null);
  };
  const whole = model.upscaleFactors.filter(suits).at(-1);
  if (whole !== undefined || !model.fractionalFactors) return whole ?? null;
  for (let tenths = most(model) * 10; tenths > 10; tenths--) if (suits(tenths / 10)) return tenths / 10;
  return null;
}
