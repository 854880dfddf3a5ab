/** What goes wrong, as callers see it. */

/**
 * @typedef {Record<string, any>} Item
 * @typedef {{code: string, message: string, taskUUID?: string, taskType?: string, parameter?: string,
 *   documentation?: string, retryAfter?: number, cost?: number}} ErrorItem
 */

/** An error of the server's; or of this module, with the code `unreachable`, `closed` or `invalidSource`. */
export class TilewireError extends Error {
  /** @param {ErrorItem} item As the server sends it. @param {{cause?: unknown}} [options] */
  constructor(item, options) {
    super(item.message, options);
    this.name = "TilewireError";
    this.item = item;
    this.code = item.code;
    this.parameter = item.parameter ?? null;
    this.taskUUID = item.taskUUID ?? null;
    this.retryAfter = item.retryAfter ?? null;
    this.documentation = item.documentation ?? null;
  }
}

/** The connection ended before the reply came. */
export class ConnectionLost extends Error {}
