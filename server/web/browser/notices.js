/** What is to be said beside the picture, for a while: it takes a place of its own and covers nothing. */

import { byId, make } from "./dom.js";

const SHOWN = 10_000;
const MOST_LINES = 5;

/**
 * It goes by itself, not while it is pointed at or holds the focus.
 * @param {string[]} messages
 * @param {{action?: {label: string, run: () => void}, kind?: "error" | "news", stays?: boolean}} [options]
 */
export function notify(messages, { action, kind = "news", stays = false } = {}) {
  const lines = messages.slice(0, MOST_LINES);
  if (messages.length > MOST_LINES) lines.push(`and ${messages.length - MOST_LINES} more`);
  const close = make("button", { className: "icon-button", type: "button", "aria-label": "Close" }, "×");
  const list = make("ul", {}, ...lines.map((line) => make("li", {}, line)));
  const notice = make("div", { className: "notice", role: kind === "error" ? "alert" : "status", data: { kind } }, list);
  if (action) {
    const button = make("button", { type: "button" }, action.label);
    button.addEventListener("click", () => {
      notice.remove();
      action.run();
    });
    notice.append(button);
  }
  notice.append(close);
  close.addEventListener("click", () => notice.remove());
  const leave = () => {
    if (notice.matches(":hover, :focus-within")) setTimeout(leave, 1000);
    else notice.remove();
  };
  if (!stays) setTimeout(leave, SHOWN);
  byId("notices").replaceChildren(notice);
}
