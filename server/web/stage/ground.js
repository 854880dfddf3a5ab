/** What shows how pixels are: a checkerboard where a picture is transparent, and edges instead of blur when zoomed in. */

import { byId } from "../browser/dom.js";
import { read, write } from "../browser/storage.js";

const STORED = "tilewire.pixels";
const LEAST = 1.001; // device pixels per pixel; below that there is nothing to see

/** @param {import("./viewer.js").Viewer} viewer */
export function offerPixels(viewer) {
  const button = byId("pixels");
  let wanted = read(STORED) === "edges";
  let drawn = "";
  const draw = () => {
    const large = viewer.zoom >= LEAST;
    if (drawn === `${wanted} ${large}`) return; // it is asked each frame
    drawn = `${wanted} ${large}`;
    button.hidden = !large;
    button.setAttribute("aria-pressed", String(wanted));
    viewer.stage.classList.toggle("edges", wanted && large);
  };
  button.addEventListener("click", () => {
    wanted = !wanted;
    write(STORED, wanted ? "edges" : "smooth");
    draw();
  });
  viewer.addEventListener("move", draw);
  draw();
}

/** @param {import("./viewer.js").Viewer} viewer @param {() => boolean} isTransparent Of what is shown. */
export function layCheckerboard(viewer, isTransparent) {
  const board = byId("checkerboard");
  viewer.addEventListener("move", () => {
    board.hidden = !isTransparent();
    if (board.hidden) return;
    const { left, right, top, bottom } = viewer.visible;
    const { width, height } = viewer.room;
    board.style.clipPath = `inset(${top}px ${width - right}px ${height - bottom}px ${left}px)`;
  });
}
