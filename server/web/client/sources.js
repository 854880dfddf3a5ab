/** What can be upscaled: to what is uploaded, or named. */

import { TilewireError } from "./errors.js";

/** @typedef {Blob | ArrayBuffer | Uint8Array | ImageData | ImageBitmap | URL | string} Source */

const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i;

/**
 * A name that the server can use: the UUID of an image that it has, or an address that it fetches; else null.
 * @param {Source} source
 */
export function nameOfSource(source) {
  if (typeof source !== "string" && !(source instanceof URL)) return null;
  if (UUID.test(String(source))) return String(source);
  try {
    const { href, protocol } = new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href);
    return protocol === "blob:" || protocol === "data:" ? null : href;
  } catch (cause) {
    throw invalidSource(cause);
  }
}

/** The file of an image. Of one on disk nothing is read yet. @param {Source} source @returns {Promise<Blob>} */
export async function fileOf(source) {
  try {
    return await blobOf(source);
  } catch (cause) {
    throw invalidSource(cause);
  }
}

/**
 * How a file begins. What cannot be read any more is noticed here, not when it is sent.
 * @param {Blob} file @param {number} size
 */
export async function headOf(file, size) {
  try {
    return new Uint8Array(await file.slice(0, size).arrayBuffer());
  } catch (cause) {
    throw invalidSource(cause);
  }
}

/** @param {unknown} cause */
function invalidSource(cause) {
  const message = "the image cannot be read: give a file, a Blob, bytes, ImageData, an ImageBitmap, or an address";
  return new TilewireError({ code: "invalidSource", message, parameter: "source" }, { cause });
}

/** Whether a PNG or WebP, of which this is the beginning, has an alpha channel. @param {Uint8Array} bytes */
export function hasAlpha(bytes) {
  const kind = String.fromCharCode(...bytes.subarray(0, 16));
  if (kind.startsWith("\x89PNG")) return bytes[25] === 4 || bytes[25] === 6;
  if (kind.endsWith("VP8X")) return Boolean(bytes[20] & 0x10);
  return kind.endsWith("VP8L") && Boolean(bytes[24] & 0x10);
}

/** @param {Source} source @returns {Promise<Blob>} */
async function blobOf(source) {
  if (source instanceof Blob) return source;
  if (source instanceof ArrayBuffer || source instanceof Uint8Array) {
    return new Blob([/** @type {ArrayBuffer | Uint8Array<ArrayBuffer>} */ (source)]);
  }
  if (typeof source === "string" || source instanceof URL) return (await fetch(source)).blob();
  const canvas = new OffscreenCanvas(source.width, source.height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  if (source instanceof ImageData) context.putImageData(source, 0, 0);
  else context.drawImage(source, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/**
 * The size of a JPEG, PNG or WebP.
 * @param {Uint8Array} bytes How it begins. @returns {{width: number, height: number}}
 */
export function sizeOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) === 0x89504e47) return { width: view.getUint32(16), height: view.getUint32(20) };
  if (view.getUint32(0) === 0x52494646) return sizeOfWebp(view);
  // JPEG (ITU T.81, B.1.1): segments of a marker and a length, up to the frame header SOF.
  for (let at = 2; at < view.byteLength - 9; at += 2 + view.getUint16(at + 2)) {
    const marker = view.getUint8(at + 1);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return { width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
    }
  }
  return { width: 0, height: 0 };
}

/** RFC 9649 and RFC 6386, section 9.1. @param {DataView} view */
function sizeOfWebp(view) {
  const kind = view.getUint32(12);
  if (kind === 0x56503858) { // VP8X
    const three = (/** @type {number} */ at) => 1 + view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
    return { width: three(24), height: three(27) };
  }
  if (kind === 0x5650384c) { // VP8L
    const bits = view.getUint32(21, true);
    return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >> 14) & 0x3fff) };
  }
  return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
}

/** Raw pixels of the server's. @param {{width: number, height: number, channels: number, pixels: Uint8Array}} image */
export function imageDataOf({ width, height, channels, pixels }) {
  const result = new ImageData(width, height);
  if (channels === 4) result.data.set(pixels);
  else {
    result.data.fill(255);
    for (let to = 0, from = 0; to < result.data.length; to += 4, from += channels) {
      for (let at = 0; at < 3; at++) result.data[to + at] = pixels[from + Math.min(at, channels - 1)];
    }
  }
  return result;
}
