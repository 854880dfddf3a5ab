/** What the server tells after signing in: its models, and the account's credit. */

import { ConnectionLost } from "./connection.js";
import { byId } from "./dom.js";
import { money } from "./format.js";

/**
 * @param {import("./connection.js").Connection} connection
 * @param {import("./settings_form.js").SettingsForm} form
 * @param {import("./runner.js").Runner} runner
 */
export function followAccount(connection, form, runner) {
  /** @param {() => Promise<void>} ask */
  const unlessLost = (ask) =>
    ask().catch((error) => {
      if (!(error instanceof ConnectionLost)) throw error; // asked again when it is back
    });

  async function models() {
    const { results } = await connection.request({ taskType: "modelSearch", limit: 100 });
    form.setModels(results);
  }

  async function credit() {
    const { balance } = await connection.request({ taskType: "accountManagement", operation: "getDetails" });
    byId("credit").hidden = balance.amount === null;
    byId("credit").textContent = balance.amount === null ? "" : `Credit ${money(balance.amount)}`;
  }

  connection.addEventListener("online", () => {
    unlessLost(models);
    unlessLost(credit);
  });
  runner.addEventListener("finish", () => unlessLost(credit));
}
