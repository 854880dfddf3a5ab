/**
 * How long upscales take on this server: seconds by model, for each megapixel of the result, as it was for this page
 * before, or else as the server says; and what the steps beside took: removing noise by megapixel of the input,
 * restoring faces by picture, as nobody knows before how many there are.
 */

import { readObject, writeObject } from "../browser/storage.js";
import { effort, resultSize } from "./estimate.js";

/**
 * @typedef {import("./tasks.js").Task} Task
 * @typedef {import("./tasks.js").Settings} Settings
 * @typedef {import("./estimate.js").Model} Model
 * @typedef {{air: string, work: number}} Step A model, and how much it has to do.
 * @typedef {{seconds: number, more: boolean}} Estimate With whether more will be added that nobody knows.
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

  /** Learn from a task that is done: how long its last step took, if the others are known. @param {Task} task */
  learn(task) {
    const { settings, started, finished } = task;
    const steps = this.#steps(task, settings);
    const last = steps?.pop();
    if (!steps || !last || started === null || finished === null) return;
    let seconds = (finished - started) / 1000;
    for (const step of steps) {
      const known = this.#known(step);
      if (known === null) return;
      seconds -= known;
    }
    const pace = Math.max(0, seconds) / last.work;
    const before = this.#seconds[last.air];
    this.#seconds[last.air] = before > 0 ? before + LATEST * (pace - before) : pace;
    writeObject(STORED, this.#seconds);
  }

  /**
   * How long it should take once it begins; null if nobody knows.
   * @param {Task} task @param {Settings | null} settings @returns {Estimate | null}
   */
  estimate(task, settings = task.settings) {
    const [first, ...others] = this.#steps(task, settings) ?? [];
    const seconds = first ? this.#known(first) : null;
    if (seconds === null) return null;
    const beside = others.map((step) => this.#known(step));
    return { seconds: beside.reduce((/** @type {number} */ sum, known) => sum + (known ?? 0), seconds), more: beside.includes(null) };
  }

  /** Seconds that a step should take. @param {Step} step */
  #known({ air, work }) {
    const pace = this.#seconds[air] ?? this.model(air)?.secondsPerMegapixel ?? 0;
    return pace > 0 ? pace * work : null;
  }

  /** What is to be done, the upscale first; null where it is not known how much. @param {Task} task @param {Settings | null} settings */
  #steps(task, settings) {
    const size = settings && resultSize(task, settings);
    if (!size || task.width === null || task.height === null) return null;
    const { blend, denoise, faceRestoration } = settings.options ?? {};
    const megapixels = Math.max(LEAST, (size.width * size.height) / 1e6);
    /** @type {Step[]} */
    const steps = [];
    for (const air of blend ? [settings.model, blend.model] : [settings.model]) {
      const model = this.model(air);
      if (!model) return null;
      steps.push({ air, work: megapixels * effort(task, settings, model) });
    }
    if (denoise) steps.push({ air: denoise.model, work: Math.max(LEAST, (task.width * task.height) / 1e6) });
    if (faceRestoration) steps.push({ air: faceRestoration.model, work: 1 });
    return steps;
  }

  /**
   * How far a task under way is, and how many seconds are left of it. Where nothing has come yet, by what it should
   * take: a picture that the server does in one piece has no progress of its own.
   * @param {Task} task @returns {{progress: number, left: number | null}}
   */
  outlook(task) {
    const { started, progress } = task;
    const estimate = this.estimate(task);
    const expected = estimate === null || estimate.more ? null : estimate.seconds;
    if (task.status !== "processing" || started === null) return { progress, left: expected };
    const gone = Math.max(0, (Date.now() - started) / 1000);
    if (progress > 0.02) return { progress, left: (gone * (1 - progress)) / progress };
    if (expected === null) return { progress, left: null };
    return { progress: Math.max(progress, Math.min(0.95, gone / expected)), left: Math.max(0, expected - gone) };
  }
}
