/** Names of files that are saved together. */

/** A name that no other of them has, and that every system takes. @param {string} name @param {Set<string>} taken Names in lower case. */
export function unique(name, taken) {
  const clean = name.replace(/[\\/:*?"<>|\x00-\x1f]/g, "_");
  const [, stem, suffix] = /** @type {RegExpMatchArray} */ (clean.match(/^(.*?)(\.[^.]*)?$/s));
  let result = clean;
  for (let count = 2; taken.has(result.toLowerCase()); count++) result = `${stem} (${count})${suffix ?? ""}`;
  taken.add(result.toLowerCase());
  return result;
}
