/** The theme of the page, buttons that copy code, and search. Without it the documentation can still be read. */

const THEME = "tilewire.theme"; // the page to upscale images keeps it, too
const MOST_FOUND = 12;
const AROUND = 70; // letters beside what was found

const dark = matchMedia("(prefers-color-scheme: dark)");
applyTheme(kept());
addEventListener("storage", ({ key }) => key === THEME && applyTheme(kept()));
addEventListener("DOMContentLoaded", () => {
  offerThemes();
  for (const code of document.querySelectorAll("pre")) offerCopy(code);
  offerSearch();
});

/** @returns {string | null} */
function kept() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null;
  }
}

/** @param {string | null} theme */
function applyTheme(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
}

function offerThemes() {
  const button = make("button", { type: "button", className: "theme" });
  const label = () => (button.textContent = isDark() ? "Light theme" : "Dark theme");
  button.addEventListener("click", () => {
    const wanted = isDark() ? "light" : "dark";
    applyTheme(wanted);
    try {
      if (wanted === (dark.matches ? "dark" : "light")) localStorage.removeItem(THEME);
      else localStorage.setItem(THEME, wanted);
    } catch {
      // for this page only, then
    }
    label();
  });
  dark.addEventListener("change", label);
  label();
  document.querySelector("header")?.append(button);
}

/** @param {HTMLElement} code */
function offerCopy(code) {
  const button = make("button", { type: "button", className: "copy" }, "Copy");
  button.addEventListener("click", async () => {
    await copy(code.textContent ?? "");
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
  code.tabIndex = 0; // what is wider than the page is scrolled to by keyboard
  const frame = make("div", { className: "copyable" });
  code.replaceWith(frame);
  frame.append(code, button);
}

/** @param {string} text */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea", { value: text }); // neither on HTTPS nor on localhost
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/**
 * A section of a page, as `search.json` lists them.
 * @typedef {{page: string, title: string, anchor: string, heading: string, text: string}} Section
 */

function offerSearch() {
  const field = make("input", { type: "search", placeholder: "Search  /", autocomplete: "off" });
  field.setAttribute("aria-label", "Search the documentation");
  const found = make("ul", { className: "found", hidden: true });
  found.setAttribute("aria-label", "Found");
  const count = make("p", { className: "count", role: "status" });
  const search = make("search", {}, field, count, found);
  document.querySelector("nav")?.prepend(search);

  /** @type {Promise<Section[]> | undefined} */
  let sections;
  field.addEventListener("focus", () => (sections ??= fetch("search.json").then((response) => response.json())));
  field.addEventListener("input", async () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = (await sections) ?? [];
    const matches = words.length ? matching(all, words) : [];
    found.replaceChildren(...matches.slice(0, MOST_FOUND).map((section) => make("li", {}, link(section, words))));
    found.hidden = matches.length === 0;
    count.textContent = words.length ? (matches.length ? `${matches.length} found` : "Nothing found") : "";
  });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !(event.target instanceof HTMLInputElement)) {
      event.preventDefault();
      field.focus();
    } else if (event.key === "Escape" && search.contains(document.activeElement)) {
      field.value = "";
      field.dispatchEvent(new Event("input"));
      field.focus();
    } else if (event.key === "Enter" && event.target === field) {
      /** @type {HTMLElement | null} */ (found.querySelector("a"))?.click();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const stops = [field, .../** @type {NodeListOf<HTMLElement>} */ (found.querySelectorAll("a"))];
      const index = stops.findIndex((stop) => stop === document.activeElement);
      if (index < 0) return;
      event.preventDefault();
      stops[Math.max(0, Math.min(stops.length - 1, index + (event.key === "ArrowDown" ? 1 : -1)))].focus();
    }
  });
}

/** Those with all words; those that have them in their headings come first. @param {Section[]} sections @param {string[]} words */
function matching(sections, words) {
  const rank = (/** @type {Section} */ { title, heading, text }) => {
    const [head, body] = [`${title} ${heading}`.toLowerCase(), text.toLowerCase()];
    if (!words.every((word) => head.includes(word) || body.includes(word))) return 0;
    return 1 + words.filter((word) => head.includes(word)).length;
  };
  return sections
    .map((section) => ({ section, value: rank(section) }))
    .filter(({ value }) => value > 0)
    .sort((a, b) => b.value - a.value)
    .map(({ section }) => section);
}

/** @param {Section} section @param {string[]} words */
function link({ page, title, anchor, heading, text }, words) {
  const at = Math.max(0, ...words.map((word) => text.toLowerCase().indexOf(word)));
  const start = Math.max(0, at - AROUND);
  const part = (start ? "…" : "") + text.slice(start, at + AROUND) + (at + AROUND < text.length ? "…" : "");
  const name = make("b", {}, heading && heading !== title ? `${title} › ${heading}` : title);
  return make("a", { href: anchor ? `${page}#${anchor}` : page }, name, make("span", {}, ...marked(part, words)));
}

/** @param {string} text @param {string[]} words */
function marked(text, words) {
  const any = new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "i");
  return text.split(any).map((part, index) => (index % 2 ? make("mark", {}, part) : part));
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {Record<string, any>} properties @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
