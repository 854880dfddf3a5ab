/** Tells those who look elsewhere: progress in the tab's title, and a notification when all is done, if it is wanted. */

import { isUnfinished } from "../tasks/tasks.js";
import { percent, plural } from "../text/format.js";
import { byId, coalesced } from "./dom.js";

const TITLE = document.title;
const LONG = 15; // seconds; who waits less does not look elsewhere

/**
 * @param {import("../tasks/tasks.js").Tasks} tasks
 * @param {import("../tasks/runner.js").Runner} runner
 * @param {import("../tasks/pace.js").Pace} pace
 */
export function callAttention(tasks, runner, pace) {
  const offer = byId("notify");
  let [done, failed] = [0, 0]; // since work began, or the user looked

  function draw() {
    const all = tasks.inOrder().filter(isUnfinished);
    const shares = all.map((task) => (task.status === "processing" ? pace.outlook(task).progress : 0));
    const ended = done + failed;
    if (all.length) {
      const share = (shares.reduce((sum, each) => sum + each, 0) + ended) / (all.length + ended);
      document.title = `${percent(share)} · ${TITLE}`;
    } else {
      const news = [done && `${done} done`, failed && `${failed} failed`].filter(Boolean).join(", ");
      document.title = news && document.hidden ? `✓ ${news} · ${TITLE}` : TITLE;
      if (!document.hidden) done = failed = 0;
    }
    const left = all.reduce((sum, task) => sum + (pace.outlook(task).left ?? 0), 0);
    offer.hidden = !canAsk() || all.length === 0 || (left < LONG && all.length < 4);
  }

  runner.addEventListener("finish", (event) => {
    const { status } = /** @type {CustomEvent} */ (event).detail;
    if (status === "done") done += 1;
    else if (status === "failed") failed += 1;
    if (document.hidden && !tasks.inOrder().some(isUnfinished)) show(done, failed);
    draw();
  });
  offer.addEventListener("click", async () => {
    await Notification.requestPermission();
    draw();
  });
  document.addEventListener("visibilitychange", draw);
  const drawSoon = coalesced(draw);
  tasks.addEventListener("change", drawSoon);
  tasks.addEventListener("remove", drawSoon);
  setInterval(draw, 1000);
  draw();
}

function canAsk() {
  return "Notification" in window && isSecureContext && Notification.permission === "default";
}

/** @param {number} done @param {number} failed */
function show(done, failed) {
  if (!("Notification" in window) || Notification.permission !== "granted") return;
  const body = [done && `${plural(done, "image")} upscaled`, failed && `${failed} failed`].filter(Boolean).join(", ");
  try {
    const notification = new Notification(TITLE, { body, tag: "tilewire" });
    notification.onclick = () => {
      focus();
      notification.close();
    };
  } catch {
    // Android's browsers show notifications of service workers only; the title says it too.
  }
}
