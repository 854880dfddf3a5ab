/**
 * Files as one ZIP archive, stored as they are, made while it is written.
 * https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
 */

import { unique } from "./file_names.js";

const CHUNK = 2 ** 25;
const UTF8_AND_DESCRIPTOR = 0x0808; // names are UTF-8; size and checksum follow the file
const VERSION = 45; // knows ZIP64
const NO_SIZE = 0xffffffff;

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** @param {number} checksum @param {Uint8Array} bytes */
function crc32(checksum, bytes) {
  let value = ~checksum;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
  return ~value >>> 0;
}

/**
 * @param {AsyncIterable<{name: string, body: ReadableStream<Uint8Array>}>} files
 * @returns {AsyncGenerator<Uint8Array<ArrayBuffer>>}
 */
export async function* zip(files) {
  /** @type {{name: Uint8Array, offset: number, size: number, checksum: number}[]} */
  const entries = [];
  const taken = new Set();
  let offset = 0;
  for await (const { name: wanted, body } of files) {
    const name = new TextEncoder().encode(unique(wanted, taken));
    const entry = { name, offset, size: 0, checksum: 0 };
    const head = record(0x04034b50, [2, VERSION], [2, UTF8_AND_DESCRIPTOR], [2, 0], ...time(), [4, 0], [4, NO_SIZE], [4, NO_SIZE],
      [2, name.length], [2, 20], name, [2, 1], [2, 16], [8, 0], [8, 0]);
    yield head;
    const reader = body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      entry.checksum = crc32(entry.checksum, value);
      entry.size += value.length;
      yield /** @type {Uint8Array<ArrayBuffer>} */ (value);
    }
    const descriptor = record(0x08074b50, [4, entry.checksum], [8, entry.size], [8, entry.size]);
    yield descriptor;
    offset += head.length + entry.size + descriptor.length;
    entries.push(entry);
  }
  const start = offset;
  for (const entry of entries) {
    const { name } = entry;
    const line = record(0x02014b50, [2, VERSION], [2, VERSION], [2, UTF8_AND_DESCRIPTOR], [2, 0], ...time(), [4, entry.checksum],
      [4, NO_SIZE], [4, NO_SIZE], [2, name.length], [2, 28], [2, 0], [2, 0], [2, 0], [4, 0], [4, NO_SIZE], name,
      [2, 1], [2, 24], [8, entry.size], [8, entry.size], [8, entry.offset]);
    yield line;
    offset += line.length;
  }
  const count = entries.length;
  yield record(0x06064b50, [8, 44], [2, VERSION], [2, VERSION], [4, 0], [4, 0], [8, count], [8, count], [8, offset - start], [8, start]);
  yield record(0x07064b50, [4, 0], [8, offset], [4, 1]);
  yield record(0x06054b50, [2, 0], [2, 0], [2, 0xffff], [2, 0xffff], [4, NO_SIZE], [4, NO_SIZE], [2, 0]);
}

/** All of it; the browser may keep large ones on disk. @param {AsyncIterable<Uint8Array<ArrayBuffer>>} chunks */
export async function blobOf(chunks) {
  /** @type {Blob[]} */
  const blobs = [];
  /** @type {BlobPart[]} */
  let parts = [];
  let size = 0;
  for await (const chunk of chunks) {
    parts.push(chunk);
    size += chunk.length;
    if (size < CHUNK) continue;
    blobs.push(new Blob(parts));
    parts = [];
    size = 0;
  }
  return new Blob([...blobs, ...parts], { type: "application/zip" });
}

/** MS-DOS's: two seconds and 1980 are its limits. @returns {[2, number][]} */
function time() {
  const now = new Date();
  const clock = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  return [[2, clock], [2, ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate()]];
}

/**
 * A signature, then numbers of 2, 4 or 8 bytes, little-endian, and bytes as they are.
 * @param {number} signature @param {...([2 | 4 | 8, number] | Uint8Array)} fields
 */
function record(signature, ...fields) {
  /** @type {([2 | 4 | 8, number] | Uint8Array)[]} */
  const all = [[4, signature], ...fields];
  const length = all.reduce((sum, field) => sum + (field instanceof Uint8Array ? field.length : field[0]), 0);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  let offset = 0;
  for (const field of all) {
    if (field instanceof Uint8Array) bytes.set(field, offset);
    else if (field[0] === 2) view.setUint16(offset, field[1], true);
    else if (field[0] === 4) view.setUint32(offset, field[1], true);
    else view.setBigUint64(offset, BigInt(field[1]), true);
    offset += field instanceof Uint8Array ? field.length : field[0];
  }
  return bytes;
}
