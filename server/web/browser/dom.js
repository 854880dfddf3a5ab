/** Small helpers for elements. */

/**
 * The element of the page with this id.
 * @template {Element} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`there is no #${id}`);
  return /** @type {any} */ (element);
}

/**
 * A new element. Properties are set as such; those of `data` become data attributes, names with a dash
 * attributes.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else /** @type {any} */ (element)[name] = value;
  }
  element.append(...children);
  return element;
}

/** An image of a file; the file's URL goes as soon as it has been read. @param {Blob} file @param {string} alt */
export function imageOf(file, alt) {
  const image = make("img", { alt, draggable: false });
  image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  return image;
}

/** Draws once for all that happens in one go: a thousand images may be removed at a time. @param {() => void} draw */
export function coalesced(draw) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    queueMicrotask(() => {
      due = false;
      draw();
    });
  };
}

/** Tell a screen reader. @param {string} message */
export function announce(message) {
  byId("announcer").textContent = message;
}

/** @param {string} text @returns {Promise<void>} */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea", { value: text, className: "visually-hidden" }); // not on HTTPS or localhost
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/**
 * Say on a button for a moment that it worked.
 * @param {HTMLElement} button
 * @param {string} message
 */
export function confirm(button, message) {
  const label = button.querySelector(".label") ?? button;
  const before = button.dataset.before ?? label.textContent ?? "";
  button.dataset.before = before;
  label.textContent = message;
  announce(message);
  setTimeout(() => {
    label.textContent = before;
    delete button.dataset.before;
  }, 1600);
}
