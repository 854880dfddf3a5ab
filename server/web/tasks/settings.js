/** What tells results of one image apart. */

/** @typedef {import("./tasks.js").Settings} Settings */

/** Whether they make the same of an image. @param {Settings | null} one @param {Settings | null} other */
export function sameSettings(one, other) {
  return key(one) === key(other);
}

/** @param {Settings | null} settings */
function key(settings) {
  if (!settings) return "";
  const { model, factor, targetMegapixels, box = null, format, quality, keepMetadata = false, parameters, options = {} } = settings;
  return JSON.stringify([model, factor, targetMegapixels, box, format, format === "PNG" || quality, keepMetadata, parameters, options]);
}
