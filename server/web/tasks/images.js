/** From files to tasks that are ready to be started. */

import { newUUID } from "../client.js";
import { bytes, megapixels } from "../text/format.js";
import { FRESH } from "./tasks.js";

/**
 * @typedef {{maxImageBytes: number, maxInputMegapixels: number, maxOutputMegapixels: number,
 *   hasPrices: boolean}} Limits
 * @typedef {import("./tasks.js").Task} Task
 */

const THUMBNAIL = 192;

/** @type {[RegExp, import("./tasks.js").Format][]} Kinds that are known, each with the format that keeps what it holds. */
const KINDS = [
  [/^\xff\xd8\xff/, "JPG"],
  [/^\x89PNG\r\n\x1a\n/, "PNG"],
  [/^GIF8/, "PNG"],
  [/^RIFF.{4}WEBP/s, "WEBP"],
  [/^BM/, "PNG"],
  [/^(II\*\0|MM\0\*)/, "PNG"], // TIFF
  [/^.{4}ftyp(avif|avis|mif1|msf1)/s, "WEBP"], // AVIF
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
  const start = await file.slice(0, 16).arrayBuffer().catch(() => {
    throw new Unfit("this file cannot be read");
  });
  const head = String.fromCharCode(...new Uint8Array(start));
  const kind = KINDS.find(([signature]) => signature.test(head));
  if (!kind) throw new Unfit("not an image of a known kind (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF)");
  // One that this browser cannot show, such as a TIFF, may still be one that the server can read.
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (bitmap && bitmap.width * bitmap.height > maxInputMegapixels * 1e6) {
    const size = megapixels(bitmap.width, bitmap.height);
    bitmap.close();
    throw new Unfit(`too large: ${size}; this server takes up to ${maxInputMegapixels} MP`);
  }
  const id = newUUID();
  return {
    ...FRESH,
    id,
    picture: id,
    ...order,
    name: file.name,
    file,
    format: kind[1],
    width: bitmap?.width ?? null,
    height: bitmap?.height ?? null,
    transparent: bitmap !== null && isTransparent(bitmap),
    thumbnail: bitmap && (await thumbnail(bitmap)),
    input: null,
  };
}

/** Whether any part is not opaque, as far as a small copy shows. @param {ImageBitmap} bitmap */
function isTransparent(bitmap) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 128;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(bitmap, 0, 0, 128, 128);
  const { data } = context.getImageData(0, 0, 128, 128);
  for (let index = 3; index < data.length; index += 4) if (data[index] < 250) return true;
  return false;
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
