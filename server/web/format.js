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
