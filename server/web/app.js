/** The page: one socket, the tasks of this browser, and what shows them. */

import { followAccount } from "./account.js";
import { showBanner } from "./banner.js";
import { codeDialog } from "./code_dialog.js";
import { Comparison } from "./comparison.js";
import { Connection } from "./connection.js";
import { showDetails } from "./details.js";
import { byId } from "./dom.js";
import { percent } from "./format.js";
import { listenToGestures } from "./gestures.js";
import { takeImages } from "./intake.js";
import { offerLaunch } from "./launch.js";
import { Picture } from "./picture.js";
import { Runner } from "./runner.js";
import { SettingsForm } from "./settings_form.js";
import { signIn } from "./sign_in.js";
import { showStrip } from "./strip.js";
import { Tasks } from "./tasks.js";
import { offerThemes } from "./theme.js";
import { Viewer } from "./viewer.js";

const connection = new Connection(new URL("v1", location.href).href.replace(/^http/, "ws"));
const tasks = await Tasks.open();
const runner = new Runner(connection, tasks);
const form = new SettingsForm();

const viewer = new Viewer(byId("stage"), [byId("before"), byId("after-pixels")]);
const comparison = new Comparison(viewer, byId("split"), byId("after"));
const picture = new Picture(viewer, comparison, runner);
listenToGestures(viewer);
byId("zoom-in").addEventListener("click", () => viewer.zoomBy(1.5));
byId("zoom-out").addEventListener("click", () => viewer.zoomBy(1 / 1.5));
byId("zoom-fit").addEventListener("click", () => viewer.fit());
byId("zoom-actual").addEventListener("click", () => viewer.actual());
viewer.addEventListener("move", () => (byId("zoom").textContent = percent(viewer.zoom)));

showDetails(tasks, runner, codeDialog());
showStrip(tasks);
tasks.addEventListener("select", () => picture.show(tasks.selected));
tasks.addEventListener("change", (event) => {
  const task = /** @type {CustomEvent} */ (event).detail;
  if (task === tasks.selected) picture.show(task);
});
picture.addEventListener("expired", (event) => {
  const task = /** @type {CustomEvent} */ (event).detail;
  tasks.update(task.id, { result: { ...task.result, expires: 0 } });
});
picture.show(tasks.selected);

takeImages(tasks);
offerLaunch(tasks, form, runner);
followAccount(connection, form, runner);
showBanner(connection);
offerThemes(/** @type {HTMLButtonElement} */ (byId("theme")));

/** @param {boolean} signedIn */
function show(signedIn) {
  byId("workspace").hidden = byId("sign-out").hidden = !signedIn;
  byId("sign-in").hidden = signedIn;
  if (!signedIn) byId("credit").hidden = true;
}

/** The images belong to whoever signed in; the next one shall neither see nor pay for them. */
function leave() {
  const all = tasks.all();
  if (all.length && !confirm("Sign out, and forget the images in this browser? Download what you need first.")) {
    return false;
  }
  for (const task of all) tasks.remove(task.id);
  return true;
}

signIn(connection, show, leave);
