/** Dark or light: as the system has it, until the user says otherwise. */

const STORED = "tilewire.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

apply(localStorage.getItem(STORED));

/** @param {HTMLButtonElement} button Switches between the two. */
export function offerThemes(button) {
  const label = () => button.setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme");
  button.addEventListener("click", () => {
    const wanted = isDark() ? "light" : "dark";
    const system = dark.matches ? "dark" : "light";
    if (wanted === system) localStorage.removeItem(STORED);
    else localStorage.setItem(STORED, wanted);
    apply(localStorage.getItem(STORED));
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
