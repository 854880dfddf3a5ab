/**
 * How long upscales take on this server: seconds by model and megapixel of the result, as it was for this page before,
 * or else as the server says.
 */

import { readObject, writeObject } from "../parts/storage.js";
import { effort, megapixelsOf } from "./estimate.js";

/**
 * @typedef {import("./tasks.js").Task} Task
 * @typedef {import("./tasks.js").Settings} Settings
 * @typedef {import("./estimate.js").Model} Model
 */

const STORED = "tilewire.pace";
const LATEST = 0.5; // how much the last one counts
const LEAST = 0.05; // megapixels: below that it is the way that takes the time

export class Pace {
  /** @type {Record<string, number>} */ #seconds = readObject(STORED);

  /** @param {(air: string) => Model | undefined} model */
  constructor(model) {
    this.model = model;
  }

  /** Learn from a task that is done. @param {Task} task */
  learn(task) {
    const { settings, started, finished } = task;
    const work = this.#work(task, settings);
    const { blend, denoise, faceRestoration } = settings?.options ?? {};
    if (blend || denoise || faceRestoration) return; // the time of several
    if (settings === null || started === null || finished === null || work === null) return;
    const pace = (finished - started) / 1000 / work;
    const before = this.#seconds[settings.model];
    this.#seconds[settings.model] = before > 0 ? before + LATEST * (pace - before) : pace;
    writeObject(STORED, this.#seconds);
  }

  /** Seconds that it should take once it begins; null if nobody knows. @param {Task} task @param {Settings | null} settings */
  seconds(task, settings = task.settings) {
    const second = settings?.options?.blend?.model;
    if (settings?.options?.faceRestoration) return null; // nobody knows how many faces there are
    let seconds = 0;
    for (const air of second === undefined ? [settings?.model ?? ""] : [settings?.model ?? "", second]) {
      const work = this.#work(task, settings, air);
      const pace = this.#seconds[air] ?? this.model(air)?.secondsPerMegapixel ?? 0;
      if (work === null || !(pace > 0)) return null;
      seconds += pace * work;
    }
    return seconds;
  }

  /** @param {Task} task @param {Settings | null} settings @param {string} [air] Of one of its models. */
  #work(task, settings, air = settings?.model ?? "") {
    const model = this.model(air);
    const megapixels = settings && megapixelsOf(task, settings);
    return model && settings && megapixels ? Math.max(LEAST, megapixels) * effort(task, settings, model) : null;
  }

  /**
   * How far a task under way is, and how many seconds are left of it. Where nothing has come yet, by what it should
   * take: a picture that the server does in one piece has no progress of its own.
   * @param {Task} task @returns {{progress: number, left: number | null}}
   */
  outlook(task) {
    const { started, progress } = task;
    const expected = this.seconds(task);
    if (task.status !== "processing" || started === null) return { progress, left: expected };
    const gone = Math.max(0, (Date.now() - started) / 1000);
    if (progress > 0.02) return { progress, left: (gone * (1 - progress)) / progress };
    if (expected === null) return { progress, left: null };
    return { progress: Math.max(progress, Math.min(0.95, gone / expected)), left: Math.max(0, expected - gone) };
  }
}
