/** From files to tasks that are ready to be started. */

import { bytes, megapixels } from "./format.js";
import { newUUID } from "./uuid.js";

/**
 * @typedef {{maxImageBytes: number, maxInputMegapixels: number, maxOutputMegapixels: number}} Limits
 * @typedef {import("./tasks.js").Task} Task
 */

const THUMBNAIL = 192;
const SIGNATURES = [
  /^\xff\xd8\xff/, // JPEG
  /^\x89PNG\r\n\x1a\n/,
  /^GIF8/,
  /^RIFF.{4}WEBP/s,
  /^BM/,
  /^(II\*\0|MM\0\*)/, // TIFF
  /^.{4}ftyp(avif|avis|mif1|msf1)/s, // AVIF
];

/** The file cannot be upscaled; the message says why. */
export class Unfit extends Error {}

/** What the server takes. @returns {Limits} */
export function limits() {
  const meta = /** @type {HTMLMetaElement} */ (document.querySelector("meta[name=limits]"));
  return JSON.parse(meta.content);
}

/**
 * @param {File} file
 * @param {Limits} limits
 * @param {{created: number, place: number}} order
 * @returns {Promise<Task>}
 */
export async function readyTask(file, { maxImageBytes, maxInputMegapixels }, order) {
  if (file.size > maxImageBytes) {
    throw new Unfit(`too large: ${bytes(file.size)}; this server takes up to ${bytes(maxImageBytes)}`);
  }
  const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  if (!SIGNATURES.some((signature) => signature.test(head))) {
    throw new Unfit("not an image of a known kind (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF)");
  }
  // One that this browser cannot show, such as a TIFF, may still be one that the server can read.
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (bitmap && bitmap.width * bitmap.height > maxInputMegapixels * 1e6) {
    const size = megapixels(bitmap.width, bitmap.height);
    throw new Unfit(`too large: ${size}; this server takes up to ${maxInputMegapixels} MP`);
  }
  return {
    id: newUUID(),
    ...order,
    name: file.name,
    file,
    width: bitmap?.width ?? null,
    height: bitmap?.height ?? null,
    thumbnail: bitmap && (await thumbnail(bitmap)),
    settings: null,
    input: null,
    status: "ready",
    progress: 0,
    error: null,
    result: null,
  };
}

/** @param {ImageBitmap} bitmap Closed afterwards. @returns {Promise<Blob | null>} */
function thumbnail(bitmap) {
  const scale = THUMBNAIL / Math.min(bitmap.width, bitmap.height);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = THUMBNAIL;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingQuality = "high";
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  context.drawImage(bitmap, (THUMBNAIL - width) / 2, (THUMBNAIL - height) / 2, width, height);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.8));
}
