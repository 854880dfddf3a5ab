/** What the server says after signing in: its models, and the account's credit. */

import { byId } from "../browser/dom.js";
import { ConnectionLost, TilewireError } from "../client.js";
import { limits } from "../tasks/images.js";
import { money } from "../text/format.js";

let priced = false;

/** Whether money is of interest here: the account has credit to use up, or whoever runs the server has set prices. */
export function isPriced() {
  return priced;
}

/**
 * @param {import("../client/connection.js").Connection} connection
 * @param {import("../panel/settings_form.js").SettingsForm} form
 * @param {import("../tasks/runner.js").Runner} runner
 * @param {() => void} changed Whether there are prices.
 */
export function followAccount(connection, form, runner, changed) {
  /** @param {() => Promise<void>} ask */
  const unlessLost = (ask) =>
    ask().catch((error) => {
      if (!(error instanceof ConnectionLost)) throw error; // asked again when it is back
    });

  async function models() {
    const { results } = await connection.request({ taskType: "modelSearch", limit: 100 });
    const offered = new Set(results.flatMap(({ options = [] }) => options));
    const list = async (/** @type {string} */ option, /** @type {string} */ category) =>
      offered.has(option) ? (await connection.request({ taskType: "modelSearch", category, limit: 100 })).results : [];
    const beside = { denoisers: await list("denoise", "denoiser"), restorers: await list("faceRestoration", "faceRestorer") };
    form.setModels(results, beside);
  }

  /** Who signed in with a token does not see the account. */
  const unlessRefused = (/** @type {unknown} */ error) => {
    if (!(error instanceof TilewireError)) throw error;
    return { balance: { amount: null } };
  };

  async function credit() {
    const { balance } = await connection.request({ taskType: "accountManagement", operation: "getDetails" }).catch(unlessRefused);
    byId("credit").hidden = balance.amount === null;
    byId("credit").textContent = balance.amount === null ? "" : `Credit ${money(balance.amount)}`;
    const before = priced;
    priced = balance.amount !== null || limits().hasPrices;
    if (priced !== before) changed();
  }

  connection.addEventListener("online", () => {
    unlessLost(models);
    unlessLost(credit);
  });
  runner.addEventListener("finish", () => unlessLost(credit));
}
