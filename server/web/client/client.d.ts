/** Tilewire's client for pages, workers, and Node 22 or newer. See /docs/web-pages. */

/** What can be upscaled. An address is fetched by the server; a UUID names an image that the server has. */
export type Source = Blob | ArrayBuffer | Uint8Array | ImageData | ImageBitmap | URL | string;

/** A token or an API key; or what gets a token, called whenever a new one is needed. */
export type Key = string | (() => string | { token: string } | Promise<string | { token: string }>);

export interface TilewireOptions {
  /** Seconds without a connection after which tasks fail with the code `unreachable`. Default: 300. */
  patience?: number;
}

export interface UpscaleOptions {
  /** Name or AIR id. */
  model?: string;
  /** How many times as wide and high. Default: the most that the model and the limits allow. */
  factor?: number;
  /** Million pixels of the result, in place of a factor. */
  megapixels?: number;
  /** Pixels, in place of a factor. With `height` too, `resizeMode` says what both mean. */
  width?: number;
  height?: number;
  resizeMode?: "fit" | "fill" | "crop" | "stretch";
  /** Default: `JPG`; `PNG` for a file that has transparency. */
  format?: "JPG" | "PNG" | "WEBP";
  /** Of JPG and WEBP: 20 to 99. */
  quality?: number;
  keepMetadata?: boolean;
  keepHiddenColors?: boolean;
  /** Seconds until the server deletes the result. */
  ttl?: number;
  /** What only some models take. */
  settings?: Record<string, unknown>;
  /** Whether to get finished parts of the result as they come. */
  tiles?: boolean;
  /** Cancels the task. */
  signal?: AbortSignal;
  /** An idempotency key: the same task under the same UUID is done and charged once. */
  taskUUID?: string;
}

/** `progress` is from 0 to 1, `sent` and `total` in bytes, `until` in milliseconds since the epoch, tiles in pixels of the result. */
export type UpscaleEvent =
  | { type: "upload"; sent: number; total: number; progress: number }
  | { type: "waiting"; until: number }
  | { type: "queued"; position: number }
  | { type: "progress"; progress: number }
  | TileEvent;

export interface TileEvent {
  type: "tile";
  x: number;
  y: number;
  width: number;
  height: number;
  imageWidth: number;
  imageHeight: number;
  blob: Blob;
}

export interface Result {
  blob: Blob;
  url: string;
  uuid: string;
  width: number;
  height: number;
  /** In USD. */
  cost: number | null;
  seed: number | null;
  warnings: string[];
  taskUUID: string;
}

/** Awaited it gives the result, looped over by `for await` its events; either throws what went wrong. */
export class UpscaleTask implements Promise<Result> {
  private constructor();
  readonly taskUUID: string;
  readonly [Symbol.toStringTag]: string;
  then: Promise<Result>["then"];
  catch: Promise<Result>["catch"];
  finally: Promise<Result>["finally"];
  /** Have the server stop it. What is not finished costs nothing. */
  cancel(): void;
  [Symbol.asyncIterator](): AsyncGenerator<UpscaleEvent, void, undefined>;
}

export class Tilewire {
  /** Connects with the first task. The address is that of the server, such as `https://up.example`. */
  constructor(url: string | URL, key: Key, options?: TilewireOptions);
  /** What is interrupted, by the network or the server, goes on by itself and is charged once. */
  upscale(source: Source | Promise<Source>, options?: UpscaleOptions): UpscaleTask;
  /** Upscale pixels without any file around them: the fastest way for small pictures, without loss. They are not stored. */
  upscalePixels(source: ImageData, options?: Omit<UpscaleOptions, "format" | "quality" | "tiles">): Promise<ImageData>;
  /** The models that may be used. */
  models(): Promise<Record<string, any>[]>;
  /** The answer to any task of the protocol. */
  request(task: Record<string, any>, listening?: Listening): Promise<Record<string, any>>;
  /** Cancel what is under way, and close the connection. */
  close(): Promise<void>;
}

export interface Listening {
  onNews?: (item: Record<string, any>) => void;
  onWait?: (until: number) => void;
  signal?: AbortSignal;
}

/** An error of the server's; or of the client, with the code `unreachable`, `closed` or `invalidSource`. */
export class TilewireError extends Error {
  constructor(item: ErrorItem, options?: { cause?: unknown });
  readonly item: ErrorItem;
  readonly code: string;
  readonly parameter: string | null;
  readonly taskUUID: string | null;
  readonly retryAfter: number | null;
  readonly documentation: string | null;
}

export interface ErrorItem {
  code: string;
  message: string;
  parameter?: string;
  taskUUID?: string;
  taskType?: string;
  documentation?: string;
  retryAfter?: number;
  cost?: number;
}

/** Draw a tile where it belongs, or a whole result; the canvas gets the size of the result. */
export function paint(
  canvas: HTMLCanvasElement | OffscreenCanvas,
  painted: TileEvent | Pick<Result, "blob" | "width" | "height">,
  options?: { signal?: AbortSignal },
): Promise<void>;
