/**
 * MessagePack, as far as the task protocol uses it: no extension types.
 * https://github.com/msgpack/msgpack/blob/master/spec.md
 */

/**
 * @param {any} value Fields that are undefined are left out. What holds a Blob becomes one: it is read when it is sent.
 * @returns {Uint8Array<ArrayBuffer> | Blob}
 */
export function encode(value) {
  const writer = new Writer();
  writer.write(value);
  return writer.finish();
}

/**
 * @param {ArrayBuffer} buffer One value. Binaries of the result are views into it.
 * @returns {any}
 */
export function decode(buffer) {
  return new Reader(buffer).read();
}

const text = { encoder: new TextEncoder(), decoder: new TextDecoder() };

class Writer {
  /** @type {(Uint8Array<ArrayBuffer> | Blob)[]} */ #parts = [];

  /** @param {any} value */
  write(value) {
    if (value === null) this.#byte(0xc0);
    else if (typeof value === "boolean") this.#byte(value ? 0xc3 : 0xc2);
    else if (typeof value === "number") this.#number(value);
    else if (typeof value === "string") this.#text(value);
    else if (value instanceof Uint8Array) this.#binary(value, value.length);
    else if (value instanceof Blob) this.#binary(value, value.size);
    else if (Array.isArray(value)) this.#array(value);
    else this.#map(value);
  }

  finish() {
    const parts = [];
    for (const part of this.#parts) {
      if (part instanceof Blob) return new Blob(this.#parts);
      parts.push(part);
    }
    const result = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    let offset = 0;
    for (const part of parts) {
      result.set(part, offset);
      offset += part.length;
    }
    return result;
  }

  /** @param {number} code */
  #byte(code) {
    this.#parts.push(Uint8Array.of(code));
  }

  /** @param {number} code @param {1 | 2 | 4} bytes @param {number} size */
  #head(code, bytes, size) {
    const view = new DataView(new ArrayBuffer(1 + bytes));
    view.setUint8(0, code);
    if (bytes === 1) view.setUint8(1, size);
    else if (bytes === 2) view.setUint16(1, size);
    else view.setUint32(1, size);
    this.#parts.push(new Uint8Array(view.buffer));
  }

  /** @param {number} value */
  #number(value) {
    const whole = Number.isInteger(value);
    if (whole && value >= 0 && value < 0x80) return this.#byte(value);
    if (whole && value >= 0 && value < 2 ** 32) return this.#head(0xce, 4, value);
    if (whole && value < 0 && value >= -(2 ** 31)) return this.#head(0xd2, 4, value >>> 0);
    const view = new DataView(new ArrayBuffer(9));
    if (Number.isSafeInteger(value)) {
      view.setUint8(0, 0xd3);
      view.setBigInt64(1, BigInt(value));
    } else {
      view.setUint8(0, 0xcb);
      view.setFloat64(1, value);
    }
    this.#parts.push(new Uint8Array(view.buffer));
  }

  /** @param {string} value */
  #text(value) {
    const bytes = text.encoder.encode(value);
    if (bytes.length < 32) this.#byte(0xa0 | bytes.length);
    else this.#head(0xdb, 4, bytes.length);
    this.#parts.push(bytes);
  }

  /** @param {any} bytes @param {number} size */
  #binary(bytes, size) {
    this.#head(0xc6, 4, size);
    this.#parts.push(bytes);
  }

  /** @param {any[]} values */
  #array(values) {
    this.#head(0xdc, 2, values.length);
    for (const value of values) this.write(value);
  }

  /** @param {Record<string, any>} object */
  #map(object) {
    const fields = Object.entries(object).filter(([, value]) => value !== undefined);
    this.#head(0xde, 2, fields.length);
    for (const [name, value] of fields) {
      this.#text(name);
      this.write(value);
    }
  }
}

class Reader {
  #offset = 0;

  /** @param {ArrayBuffer} buffer */
  constructor(buffer) {
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
  }

  /** @returns {any} */
  read() {
    const code = this.#unsigned(1);
    if (code < 0x80) return code;
    if (code < 0x90) return this.#map(code & 0x0f);
    if (code < 0xa0) return this.#array(code & 0x0f);
    if (code < 0xc0) return this.#text(code & 0x1f);
    if (code >= 0xe0) return code - 0x100;
    switch (code) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this.#take(this.#unsigned(1));
      case 0xc5: return this.#take(this.#unsigned(2));
      case 0xc6: return this.#take(this.#unsigned(4));
      case 0xca: return this.view.getFloat32(this.#skip(4));
      case 0xcb: return this.view.getFloat64(this.#skip(8));
      case 0xcc: return this.#unsigned(1);
      case 0xcd: return this.#unsigned(2);
      case 0xce: return this.#unsigned(4);
      case 0xcf: return Number(this.view.getBigUint64(this.#skip(8)));
      case 0xd0: return this.view.getInt8(this.#skip(1));
      case 0xd1: return this.view.getInt16(this.#skip(2));
      case 0xd2: return this.view.getInt32(this.#skip(4));
      case 0xd3: return Number(this.view.getBigInt64(this.#skip(8)));
      case 0xd9: return this.#text(this.#unsigned(1));
      case 0xda: return this.#text(this.#unsigned(2));
      case 0xdb: return this.#text(this.#unsigned(4));
      case 0xdc: return this.#array(this.#unsigned(2));
      case 0xdd: return this.#array(this.#unsigned(4));
      case 0xde: return this.#map(this.#unsigned(2));
      case 0xdf: return this.#map(this.#unsigned(4));
      default: throw new Error(`MessagePack type ${code.toString(16)} is not supported`);
    }
  }

  /** @param {number} size */
  #skip(size) {
    const start = this.#offset;
    this.#offset += size;
    return start;
  }

  /** @param {1 | 2 | 4} size */
  #unsigned(size) {
    const start = this.#skip(size);
    if (size === 1) return this.view.getUint8(start);
    return size === 2 ? this.view.getUint16(start) : this.view.getUint32(start);
  }

  /** @param {number} size */
  #take(size) {
    const start = this.#skip(size);
    return this.bytes.subarray(start, start + size);
  }

  /** @param {number} size */
  #text(size) {
    return text.decoder.decode(this.#take(size));
  }

  /** @param {number} size @returns {any[]} */
  #array(size) {
    return Array.from({ length: size }, () => this.read());
  }

  /** @param {number} size @returns {Record<string, any>} */
  #map(size) {
    return Object.fromEntries(Array.from({ length: size }, () => [this.read(), this.read()]));
  }
}
