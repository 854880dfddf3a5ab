"""How smoothly the page moves a picture of 16 megapixels, against a bare page that moves one of that size.

    python -m benchmarks.page [--side PIXELS] [--rounds N]

A headless Chromium enlarges a photograph of PIXELS × PIXELS four times on the page of a server. Then the
mouse wheel zooms in and out and a drag pans, on the page and on a document that has nothing but a picture and
a CSS transform, in turns. Frames are those that Chromium's own trace tells: `DrawFrame`, and
`DroppedFrame` where one was due and not drawn. Without a GPU Chromium draws by software.
"""

import argparse
import base64
import json
import math
import os
import shutil
from itertools import pairwise
from typing import Any

from benchmarks.photos import jpeg, photograph
from benchmarks.report import KEY, Report, percentile, tilewire

MODEL, TITLE = "realesr-animevideov3", "Real-ESRGAN animevideo v3"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCALE = 4
VIEW = {"width": 1280, "height": 800}
PATIENCE_MS = 300_000
CATEGORIES = ["disabled-by-default-devtools.timeline.frame"]

BARE = """<!doctype html><style>body{margin:0;overflow:hidden}img{transform-origin:0 0}</style>
<img src="data:image/jpeg;base64,%s"><script>
let x = 0, y = 0, scale = 0.25, drag = null, due = false;
const image = document.querySelector("img");
image.draggable = false;
const place = () => {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
  });
};
addEventListener("wheel", (event) => {
  const factor = Math.exp(-event.deltaY / 500);
  x = event.clientX - (event.clientX - x) * factor;
  y = event.clientY - (event.clientY - y) * factor;
  scale *= factor;
  place();
});
addEventListener("pointerdown", (event) => (drag = event));
addEventListener("pointerup", () => (drag = null));
addEventListener("pointermove", (event) => {
  if (!drag) return;
  x += event.clientX - drag.clientX;
  y += event.clientY - drag.clientY;
  drag = event;
  place();
});
</script>"""


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page")
    parser.add_argument("--side", type=int, default=1000, help="of the photograph that is enlarged")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only this benchmark needs it

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise SystemExit("no Chromium is installed")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    report = Report("page", "shown by", "frames", "p50 ms", "p95 ms", "longest ms", "dropped")
    with tilewire("--models", MODEL) as (_, port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        tab = browser.new_page(viewport=VIEW)
        tab.set_default_timeout(PATIENCE_MS)
        photo = photograph(options.side)
        enlarge(tab, f"http://127.0.0.1:{port}/", jpeg(photo))
        bare = browser.new_page(viewport=VIEW)
        bare.set_content(BARE % base64.b64encode(jpeg(photo.repeat(SCALE, 0).repeat(SCALE, 1))).decode())
        bare.wait_for_function("document.images[0].complete && document.images[0].naturalWidth > 0")
        shown = {"Tilewire's page": tab, "a bare page": bare}
        traces: dict[str, list[tuple[list[float], int]]] = {name: [] for name in shown}
        for page in shown.values():
            page.bring_to_front()
            move(page)  # decodes and uploads the picture
        for _ in range(options.rounds):
            for name, page in shown.items():
                page.bring_to_front()
                traces[name].append(traced(browser, page))
        version = browser.version
        browser.close()
    for name, rounds in traces.items():
        intervals = [interval for each, _ in rounds for interval in each]
        report.row(
            name,
            len(intervals),
            percentile(intervals, 0.5),
            percentile(intervals, 0.95),
            max(intervals),
            sum(dropped for _, dropped in rounds),
        )
    report.say(
        f"{options.side} × {options.side} pixels ×4, zoomed and panned in a window of "
        f"{VIEW['width']} × {VIEW['height']}, alternating rounds: {options.rounds}; "
        f"60 frames a second are 16.7 ms; Chromium {version}, headless"
    )
    report.keep()


def enlarge(tab: Any, url: str, image: bytes) -> None:
    """Have the page enlarge an image, and show it."""
    tab.goto(url)
    tab.fill("#key", KEY)
    tab.click("#sign-in-button")
    tab.wait_for_selector("#model option", state="attached")
    tab.select_option("#model", label=TITLE)
    tab.check(f"input[name=size][value='{SCALE}']", force=True)
    tab.set_input_files("#file", {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": image})
    tab.wait_for_selector("#strip li")
    tab.click("#start")
    tab.wait_for_selector("#after-pixels img")
    tab.evaluate("document.querySelector('#after-pixels img').decode()")


def move(page: Any) -> None:
    """Zoom in, pan in a circle and zoom out, as a hand would."""
    x, y = VIEW["width"] // 3, VIEW["height"] // 2
    page.mouse.move(x, y)
    for _ in range(30):
        page.mouse.wheel(0, -40)
    page.mouse.down()
    for step in range(90):
        angle = 2 * math.pi * step / 45
        page.mouse.move(x + 150 * math.sin(angle), y + 150 * (1 - math.cos(angle)))
    page.mouse.up()
    for _ in range(30):
        page.mouse.wheel(0, 40)


def traced(browser: Any, page: Any) -> tuple[list[float], int]:
    """Milliseconds between the frames drawn while the picture moves, and how many were due and not drawn."""
    browser.start_tracing(page=page, categories=CATEGORIES)
    move(page)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    drawn = sorted(event["ts"] for event in events if event["name"] == "DrawFrame")
    dropped = sum(event["name"] == "DroppedFrame" for event in events)
    return [(later - earlier) / 1e3 for earlier, later in pairwise(drawn)], dropped


if __name__ == "__main__":
    main()
