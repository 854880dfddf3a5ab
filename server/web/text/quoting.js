/** Text as it is written in other languages. Names of files are strangers' text: none may become code. */

// What is unseen or reorders what is seen: a terminal acts on the one, a reader is fooled by the other.
const UNSEEN = /[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** For bash, zsh and ksh, as one word. @param {string} text */
export function inShell(text) {
  if (/^[\w./:@%+,-]+$/.test(text)) return text;
  if (!text.match(UNSEEN)) return `'${text.replaceAll("'", "'\\''")}'`;
  const escaped = text.replace(/[\\']/g, "\\$&").replaceAll("!", "\\041").replace(UNSEEN, (letter) => {
    return [...new TextEncoder().encode(letter)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
  });
  return `$'${escaped}'`;
}

/** Within a here-document of a shell, whose delimiter is not quoted. One line stays one line. @param {string} text */
export function inHeredoc(text) {
  return text.replace(/[\\$`]/g, "\\$&");
}

/** For JSON, JavaScript and, but for `true`, `false` and `null`, Python. @param {any} value */
export function inJson(value) {
  const escape = (/** @type {string} */ letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replace(UNSEEN, escape);
}

/** @param {any} value @returns {string} */
export function inPython(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "object") {
    const fields = Object.entries(value).map(([name, each]) => `${inJson(name)}: ${inPython(each)}`);
    return `{${fields.join(", ")}}`;
  }
  return inJson(value);
}
