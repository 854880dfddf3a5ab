/** Pointers, wheel and keys of the stage, as movements of the viewer. */

const STEP = 64;
const ZOOM_STEP = 1.25;
const DOUBLE_TAP = 300;
const NEAR = 24;

/** @param {import("./viewer.js").Viewer} viewer */
export function listenToGestures(viewer) {
  const { stage } = viewer;
  /** @type {Map<number, {x: number, y: number}>} */
  const pointers = new Map();
  let tapped = { x: 0, y: 0, time: 0 };

  const at = (/** @type {MouseEvent} */ event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target instanceof HTMLButtonElement) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
  });

  stage.addEventListener("pointermove", (event) => {
    const from = pointers.get(event.pointerId);
    if (!from) return;
    const to = at(event);
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const [before, after] = [distance(from, other), distance(to, other)];
      viewer.zoomBy(after / Math.max(1, before), { x: (to.x + other.x) / 2, y: (to.y + other.y) / 2 });
      viewer.panBy((to.x - from.x) / 2, (to.y - from.y) / 2);
    } else {
      viewer.panBy(to.x - from.x, to.y - from.y);
    }
    pointers.set(event.pointerId, to);
  });

  const release = (/** @type {PointerEvent} */ event) => pointers.delete(event.pointerId);
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("pointerup", (event) => {
    if (!release(event)) return;
    const here = { ...at(event), time: event.timeStamp };
    if (here.time - tapped.time < DOUBLE_TAP && distance(here, tapped) < NEAR) {
      if (viewer.fitted) viewer.actual(here);
      else viewer.fit();
      here.time = 0;
    }
    tapped = here;
  });

  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1);
      viewer.zoomBy(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.002)), at(event)); // ctrl: a pinch
    },
    { passive: false },
  );

  stage.addEventListener("keydown", (event) => {
    if (event.target !== stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = {
      ArrowLeft: () => viewer.panBy(STEP, 0),
      ArrowRight: () => viewer.panBy(-STEP, 0),
      ArrowUp: () => viewer.panBy(0, STEP),
      ArrowDown: () => viewer.panBy(0, -STEP),
      "+": () => viewer.zoomBy(ZOOM_STEP),
      "=": () => viewer.zoomBy(ZOOM_STEP),
      "-": () => viewer.zoomBy(1 / ZOOM_STEP),
      0: () => viewer.fit(),
      1: () => viewer.actual(),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** @param {{x: number, y: number}} a @param {{x: number, y: number}} b */
function distance(a, b) {
  return Math.hypot(a.x - b.x, a.y - b.y);
}
