/** Dark or light: as the system has it, until the user says otherwise. */

import { forget, read, write } from "./storage.js";

const STORED = "tilewire.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

apply(read(STORED));

/** @param {HTMLButtonElement} button Switches between the two. */
export function offerThemes(button) {
  const label = () => button.setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme");
  button.addEventListener("click", () => {
    const wanted = isDark() ? "light" : "dark";
    const system = dark.matches ? "dark" : "light";
    if (wanted === system) forget(STORED);
    else write(STORED, wanted);
    apply(read(STORED));
    label();
  });
  dark.addEventListener("change", label);
  label();
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
}

/** @param {string | null} theme */
function apply(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}
