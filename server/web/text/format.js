/** Numbers as people read them. */

const dollars = new Intl.NumberFormat("en", {
  style: "currency",
  currency: "USD",
  minimumFractionDigits: 2,
  maximumSignificantDigits: 3,
});
const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** @param {number} usd */
export function money(usd) {
  return dollars.format(usd);
}

/** @param {number} size */
export function bytes(size) {
  if (size < 1024) return `${size} bytes`;
  const [divisor, unit] = size < 2 ** 20 ? [1024, "KB"] : [2 ** 20, "MB"];
  return `${number.format(size / divisor)} ${unit}`;
}

/** @param {number} width @param {number} height */
export function megapixels(width, height) {
  return `${number.format((width * height) / 1e6)} MP`;
}

/** @param {number} width @param {number} height */
export function pixels(width, height) {
  return `${width} × ${height}`;
}

/** @param {number} share From 0 to 1. */
export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

/** @param {number} count @param {string} noun */
export function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** `8 s`, `2 min 5 s` @param {number} seconds */
export function duration(seconds) {
  if (seconds < 0.95) return `${Math.max(0.1, Math.round(seconds * 10) / 10)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [minutes, rest] = [Math.floor(whole / 60), whole % 60];
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return rest && minutes < 10 ? `${minutes} min ${rest} s` : `${minutes} min`;
}

/** `1st`, `2nd` @param {number} count */
export function ordinal(count) {
  const suffix = { one: "st", two: "nd", few: "rd" }[new Intl.PluralRules("en", { type: "ordinal" }).select(count)];
  return `${count}${suffix ?? "th"}`;
}

const FORMATS = { JPG: "JPEG", PNG: "PNG", WEBP: "WebP" };

/** @param {"JPG" | "PNG" | "WEBP"} format */
export function formatName(format) {
  return FORMATS[format];
}

/** `3×` @param {number} value */
export function times(value) {
  return `${number.format(value)}×`;
}
