/** Puts pictures where they belong. */

/**
 * @typedef {object} Painted A tile, or a result.
 * @property {Blob} blob
 * @property {number} width
 * @property {number} height
 * @property {number} [x] Of its left edge. Default: 0.
 * @property {number} [y]
 * @property {number} [imageWidth] Of the whole. Default: its own.
 * @property {number} [imageHeight]
 */

// A larger picture is drawn at a lower resolution. The first stroke on a canvas takes its memory, and the page waits:
// 80 ms for 16 megapixels, the most that iOS allows.
const CANVAS_AREA = 6_000_000;
const CANVAS_SIDE = 8192;

/**
 * Draw a tile where it belongs, or a whole result; the canvas gets the size of the result.
 * @param {HTMLCanvasElement | OffscreenCanvas} canvas
 * @param {Painted} painted
 * @param {{signal?: AbortSignal}} [options] If it is aborted while the picture is decoded nothing is drawn.
 */
export async function paint(canvas, { blob, width, height, x = 0, y = 0, imageWidth = width, imageHeight = height }, { signal } = {}) {
  const bitmap = await createImageBitmap(blob);
  const area = Math.sqrt(CANVAS_AREA / (imageWidth * imageHeight));
  const scale = Math.min(1, area, CANVAS_SIDE / Math.max(imageWidth, imageHeight));
  if (!signal?.aborted) {
    const size = { width: Math.round(imageWidth * scale), height: Math.round(imageHeight * scale) };
    if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const place = /** @type {const} */ ([x * scale, y * scale, width * scale, height * scale]);
    context.clearRect(...place);
    context.drawImage(bitmap, ...place);
  }
  bitmap.close();
}
