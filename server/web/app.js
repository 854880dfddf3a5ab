/** The page: one socket, the tasks of this browser, and what shows them. */

import { followAccount } from "./account/account.js";
import { showBanner } from "./account/banner.js";
import { signIn } from "./account/sign_in.js";
import { callAttention } from "./browser/attention.js";
import { byId } from "./browser/dom.js";
import { install } from "./browser/install.js";
import { notify } from "./browser/notices.js";
import { storage, whyUnkept } from "./browser/storage.js";
import { offerThemes } from "./browser/theme.js";
import { Connection } from "./client.js";
import { offerLaunch } from "./panel/launch.js";
import { SettingsForm } from "./panel/settings_form.js";
import { codeDialog } from "./pictures/code_dialog.js";
import { showDetails } from "./pictures/details.js";
import { offerDownloads } from "./pictures/downloads.js";
import { showStrip } from "./pictures/strip.js";
import { Comparison } from "./stage/comparison.js";
import { listenToGestures } from "./stage/gestures.js";
import { layCheckerboard, offerPixels } from "./stage/ground.js";
import { Picture } from "./stage/picture.js";
import { Spot } from "./stage/spot.js";
import { Versions } from "./stage/versions.js";
import { Viewer } from "./stage/viewer.js";
import { resultSize } from "./tasks/estimate.js";
import { takeImages } from "./tasks/intake.js";
import { Pace } from "./tasks/pace.js";
import { Runner } from "./tasks/runner.js";
import { Tasks } from "./tasks/tasks.js";
import { percent } from "./text/format.js";
import { versionName } from "./text/words.js";

const connection = new Connection(new URL("v1", location.href).href.replace(/^http/, "ws"));
const tasks = await Tasks.open();
const runner = new Runner(connection, tasks);
const form = new SettingsForm();
const pace = new Pace((air) => form.modelOf(air));
runner.addEventListener("finish", (event) => {
  const task = /** @type {CustomEvent} */ (event).detail;
  if (task.status === "done") pace.learn(task);
});

const viewer = new Viewer(byId("stage"), [byId("before"), byId("after-pixels")]);
const comparison = new Comparison(viewer, byId("split"), byId("before-layer"), byId("after"));
const picture = new Picture(viewer, comparison, runner, (task) => {
  const settings = task.settings ?? form.settingsFor(task);
  return (settings && resultSize(task, settings)) ?? (task.width ? { width: task.width, height: task.height ?? 1 } : null);
});
const versions = new Versions(tasks);
const spot = new Spot(viewer, comparison, connection, form, tasks);
listenToGestures(viewer);
offerPixels(viewer);
layCheckerboard(viewer, () => picture.task?.transparent ?? false);
byId("zoom-in").addEventListener("click", () => viewer.zoomBy(1.5));
byId("zoom-out").addEventListener("click", () => viewer.zoomBy(1 / 1.5));
byId("zoom-fit").addEventListener("click", () => viewer.fit());
byId("zoom-actual").addEventListener("click", () => viewer.actual());
viewer.addEventListener("move", () => (byId("zoom").textContent = percent(viewer.zoom)));

function showPicture() {
  const { selected } = tasks;
  const { against } = versions;
  if (selected?.id !== picture.task?.id) spot.clear();
  picture.show(selected, against);
  const all = selected ? tasks.of(selected.picture) : [];
  const named = selected !== null && all.length > 1 && selected.settings !== null;
  comparison.name(against ? versionName(against, all) : "Before", named ? versionName(selected, all) : "After");
}
showDetails(tasks, runner, pace, codeDialog());
showStrip(tasks, pace);
tasks.addEventListener("select", showPicture);
tasks.addEventListener("change", (event) => {
  if (/** @type {CustomEvent} */ (event).detail === tasks.selected) showPicture();
});
versions.addEventListener("change", showPicture);
form.addEventListener("change", showPicture);
picture.addEventListener("expired", (event) => {
  const task = /** @type {CustomEvent} */ (event).detail;
  tasks.update(task.id, { result: { ...task.result, expires: 0 } });
});
showPicture();

takeImages(tasks, connection);
const drawLaunch = offerLaunch(tasks, form, runner, pace);
followAccount(connection, form, runner, () => {
  drawLaunch();
  tasks.select(tasks.selected?.id ?? null);
});
showBanner(connection);
offerDownloads(tasks);
callAttention(tasks, runner, pace);
offerThemes(/** @type {HTMLButtonElement} */ (byId("theme")));

const sayUnkept = (/** @type {string} */ reason) => notify([reason], { stays: true });
storage.addEventListener("unkept", (event) => sayUnkept(/** @type {CustomEvent} */ (event).detail));
const unkept = whyUnkept();
if (unkept !== null) sayUnkept(unkept);

/** @param {boolean} signedIn */
function show(signedIn) {
  byId("workspace").hidden = byId("sign-out").hidden = !signedIn;
  byId("sign-in").hidden = signedIn;
  if (!signedIn) byId("credit").hidden = true;
}

/** The images belong to whoever signed in; the next one shall neither see nor pay for them. */
function leave() {
  const all = tasks.inOrder();
  if (all.length && !confirm("Sign out, and forget the images in this browser? Download what you need first.")) {
    return false;
  }
  tasks.remove(...all);
  byId("notices").replaceChildren(); // nor bring them back
  return true;
}

signIn(connection, show, leave);
install();
