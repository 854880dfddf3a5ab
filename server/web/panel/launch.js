/** The button that starts what is ready, or the selected image again; with what it will make, cost and take. */

import { isPriced } from "../account/account.js";
import { byId, coalesced } from "../browser/dom.js";
import { largestFactor, objection, price, priceBeside, resultSize } from "../tasks/estimate.js";
import { limits } from "../tasks/images.js";
import { sameSettings } from "../tasks/settings.js";
import { isExpired, isUnfinished } from "../tasks/tasks.js";
import { duration, money, pixels, plural, times } from "../text/format.js";

/**
 * @typedef {import("../tasks/tasks.js").Task} Task
 * @typedef {import("../tasks/tasks.js").Settings} Settings
 */

/**
 * @param {import("../tasks/tasks.js").Tasks} tasks
 * @param {import("./settings_form.js").SettingsForm} form
 * @param {import("../tasks/runner.js").Runner} runner
 * @param {import("../tasks/pace.js").Pace} pace
 * @returns {() => void} Draws it anew.
 */
export function offerLaunch(tasks, form, runner, pace) {
  const button = /** @type {HTMLButtonElement} */ (byId("start"));
  const all = /** @type {HTMLButtonElement} */ (byId("start-all"));
  const estimate = byId("estimate");
  const smaller = /** @type {HTMLButtonElement} */ (byId("use-smaller"));

  /** What the button starts: all that are ready if the selected one is or none is selected; else the selected one. */
  function targets() {
    const ready = tasks.inOrder().filter(({ status }) => status === "ready");
    const { selected } = tasks;
    return selected === null || selected.status === "ready" ? ready : [selected];
  }

  /** Of each picture the last result, or what will be one. */
  function everyPicture() {
    return tasks.pictures().flatMap((picture) => picture.tasks.at(-1) ?? []).reverse();
  }

  /** Whether there is a result of the same image with the same settings. @param {Task} task @param {Settings} settings */
  function exists(task, settings) {
    if (form.model?.defaultSteps && settings.parameters.seed === undefined) return false; // each has a seed of its own
    const same = (/** @type {Task} */ each) => each.status === "done" && !isExpired(each) && sameSettings(each.settings, settings);
    return tasks.of(task.picture).some((each) => same(each) || (isUnfinished(each) && sameSettings(each.settings, settings)));
  }

  /** @param {Task} task */
  function obstacle(task) {
    const settings = form.settingsFor(task);
    if (!settings || !form.model) return "";
    if (task.status !== "ready" && task.file === null && task.input === null) return "the image is no longer in this browser";
    return objection(task, settings, form.model, limits());
  }

  /** @param {Task[]} chosen Those that can be started, and are not there already. */
  function startable(chosen) {
    return chosen.filter((task) => {
      const settings = form.settingsFor(task);
      return settings !== null && obstacle(task) === null && !exists(task, settings);
    });
  }

  /** @param {Task[]} chosen */
  function start(chosen) {
    for (const task of startable(chosen)) {
      const settings = /** @type {Settings} */ (form.settingsFor(task));
      if (task.status === "ready") runner.start(task, settings);
      else runner.again(task, settings);
    }
  }
  button.addEventListener("click", () => start(targets()));
  all.addEventListener("click", () => start(everyPicture()));
  smaller.addEventListener("click", () => {
    form.useFactor(Number(smaller.dataset.factor));
    button.focus();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || button.disabled) return;
    event.preventDefault();
    button.click();
  });

  function draw() {
    const chosen = targets();
    form.setTargets(chosen);
    const can = startable(chosen);
    const others = startable(everyPicture());
    const again = chosen[0] !== undefined && chosen[0].status !== "ready";
    const idle = can.length === 0 && others.length === 0 && !chosen.some(obstacle);
    byId("launch").classList.toggle("idle", idle);
    button.disabled = can.length === 0;
    byId("start-label").textContent = chosen.length > 1 ? `Upscale ${plural(chosen.length, "image")}` : again ? "Upscale again" : "Upscale";
    all.hidden = !again || others.length < 2 || (others.length === can.length && can.length < 2);
    all.textContent = `Upscale ${others.length === everyPicture().length ? "all" : "the other"} ${others.length} images`;
    say(chosen, can);
    warn(chosen);
  }

  /** @param {Task[]} chosen @param {Task[]} can */
  function say(chosen, can) {
    estimate.classList.remove("warning");
    smaller.hidden = true;
    estimate.textContent = "";
    if (!chosen.length) estimate.textContent = tasks.inOrder().length ? "" : "Add images to upscale them.";
    const { model } = form;
    const settings = form.settingsFor(chosen[0] ?? null);
    if (!model || !settings) return;
    const against = chosen.find((task) => obstacle(task));
    if (against) {
      estimate.classList.add("warning");
      estimate.textContent = `${against.name}: ${obstacle(against)}.`;
      const factor = largestFactor(chosen, settings, model, limits());
      smaller.hidden = factor === null;
      smaller.dataset.factor = String(factor);
      smaller.textContent = `Use ${times(factor ?? 0)}`;
    } else if (chosen.length && !can.length) {
      const made = chosen.every((task) => !isUnfinished(task));
      estimate.textContent = `${made ? "Already done" : "In progress"}. Choose another model, size or format.`;
    } else if (can.length) {
      estimate.textContent = outlook(can);
    }
  }

  /** What all models of a task cost. @param {Task} task @param {Settings} settings @param {{width: number, height: number}} size Of its result. */
  function costOf(task, settings, size) {
    const { blend, denoise, faceRestoration } = settings.options ?? {};
    const source = { width: task.width ?? 0, height: task.height ?? 0 };
    const enlarger = settings.parameters.enlarger ?? form.modelOf(settings.model)?.enlarger;
    const upscalers = [settings.model, enlarger, blend?.model].flatMap((air) => form.modelOf(air ?? "") ?? []);
    let cost = upscalers.reduce((sum, model) => sum + price(size, task, settings, model), 0);
    for (const [air, of] of /** @type {const} */ ([[denoise?.model, source], [faceRestoration?.model, size]])) {
      const model = form.modelOf(air ?? "");
      if (model) cost += priceBeside(of, model);
    }
    return cost;
  }

  /** @param {Task[]} chosen */
  function outlook(chosen) {
    const parts = [];
    let [cost, seconds, more] = [0, /** @type {number | null} */ (0), false];
    for (const task of chosen) {
      const settings = /** @type {Settings} */ (form.settingsFor(task));
      const size = resultSize(task, settings);
      const time = pace.estimate(task, settings);
      seconds = seconds === null || time === null ? null : seconds + time.seconds;
      more ||= time?.more ?? false;
      if (size) cost += costOf(task, settings, size);
      if (size && chosen.length === 1) parts.push(`${pixels(size.width, size.height)} pixels`);
    }
    if (seconds) parts.push(`${more ? "at least" : "about"} ${duration(seconds)}`);
    if (isPriced() && cost) parts.push(`about ${money(cost)}`);
    const text = parts.join(", ");
    return text.charAt(0).toUpperCase() + text.slice(1);
  }

  /** Say where transparency would be lost. @param {Task[]} chosen */
  function warn(chosen) {
    const loses = chosen.filter((task) => task.transparent && form.settingsFor(task)?.format === "JPG");
    byId("format-warning").hidden = loses.length === 0;
    byId("format-warning").textContent = loses.length
      ? `JPEG has no transparency: ${loses.length === 1 ? loses[0].name : plural(loses.length, "image")} would get a background.`
      : "";
  }

  form.addEventListener("change", draw);
  const drawSoon = coalesced(draw);
  for (const event of ["change", "remove", "select"]) tasks.addEventListener(event, drawSoon);
  draw();
  return draw;
}
