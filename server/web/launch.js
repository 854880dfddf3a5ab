/** The button that starts what is ready, with what it will make and cost. */

import { byId } from "./dom.js";
import { objection, price, resultSize } from "./estimate.js";
import { money, pixels, plural } from "./format.js";
import { limits } from "./images.js";

/**
 * @param {import("./tasks.js").Tasks} tasks
 * @param {import("./settings_form.js").SettingsForm} form
 * @param {import("./runner.js").Runner} runner
 */
export function offerLaunch(tasks, form, runner) {
  const button = /** @type {HTMLButtonElement} */ (byId("start"));
  const ready = () => tasks.inOrder().filter((task) => task.status === "ready");

  button.addEventListener("click", () => {
    const settings = form.value;
    if (settings === null) return;
    for (const task of ready()) runner.start(task, settings);
  });

  function draw() {
    const [waiting, settings, model] = [ready(), form.value, form.model];
    byId("launch").classList.toggle("idle", waiting.length === 0);
    button.disabled = waiting.length === 0 || settings === null;
    byId("start-label").textContent = waiting.length > 1 ? `Upscale ${plural(waiting.length, "image")}` : "Upscale";
    byId("estimate").textContent = waiting.length ? "" : "Add images to upscale them.";
    if (!settings || !model) return;
    const objections = waiting.map((task) => objection(task, settings, model, limits()));
    const sizes = waiting.map((task) => resultSize(task, settings)).filter((size) => size !== null);
    const against = objections.find((each) => each !== null);
    byId("estimate").classList.toggle("warning", against !== undefined);
    if (against) {
      byId("estimate").textContent = against;
      button.disabled = objections.every((each) => each !== null);
    } else if (sizes.length) {
      const cost = sizes.reduce((sum, size) => sum + price(size, settings, model), 0);
      const size = sizes.length === 1 ? `${pixels(sizes[0].width, sizes[0].height)} pixels, ` : "";
      const text = size + (cost ? `about ${money(cost)}` : "free of charge");
      byId("estimate").textContent = text.charAt(0).toUpperCase() + text.slice(1);
    }
  }
  form.addEventListener("change", draw);
  tasks.addEventListener("change", draw);
  tasks.addEventListener("remove", draw);
  draw();
}
