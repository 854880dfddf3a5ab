"""How long `/client.js` blocks the main thread of a page that upscales a photograph of 20 megapixels.

    python -m benchmarks.client_module [--side PIXELS] [--factor N]

A page of another origin, in headless Chromium, does nothing for a while, then upscales a JPEG file with
`/client.js`: without tiles, and with tiles that are painted. Chromium itself reports every task of the main
thread of 50 ms or more (`longtask`); a timer of 10 ms shows how late it was at most. Without a GPU Chromium
draws by software, in the same cores that the server computes on.
"""

import argparse
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.photos import jpeg, photograph
from benchmarks.report import KEY, Report, tilewire

MODEL = "realesr-animevideov3"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 600_000

PAGE = b"""<!doctype html><input type="file"><canvas style="width: 800px"></canvas>"""

MEASURE = """async ([url, key, model, factor, how]) => {
    const { Tilewire, paint } = await import(`${url}/client.js`);
    const client = new Tilewire(url, key);
    await client.models();
    const [file] = document.querySelector("input").files;
    const long = [];
    const observer = new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries()) long.push(duration);
    });
    observer.observe({ type: "longtask" });
    let late = 0, last = performance.now();
    const timer = setInterval(() => {
        const now = performance.now();
        late = Math.max(late, now - last - 10);
        last = now;
    }, 10);
    const began = performance.now();
    let tiles = 0;
    if (how === "nothing") await new Promise((resolve) => setTimeout(resolve, 5000));
    else {
        const task = client.upscale(file, { model, factor, tiles: how === "tiles" });
        for await (const event of task) {
            if (event.type !== "tile") continue;
            await paint(document.querySelector("canvas"), event);
            tiles += 1;
        }
        await task;
    }
    const seconds = (performance.now() - began) / 1000;
    await new Promise((resolve) => setTimeout(resolve, 200));
    clearInterval(timer);
    observer.disconnect();
    await client.close();
    return { seconds, tiles, late, long: long.length, longest: Math.max(0, ...long) };
}"""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def elsewhere() -> Iterator[str]:
    """The address of a page of another origin."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()


def measure(browser: Any, page: str, photo: bytes, given: list[Any]) -> dict[str, float]:
    tab = browser.new_page()
    tab.set_default_timeout(PATIENCE_MS)
    tab.goto(page)
    tab.set_input_files("input", [{"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo}])
    found: dict[str, float] = tab.evaluate(MEASURE, given)
    tab.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4472)
    parser.add_argument("--factor", type=int, default=2)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may not be installed

    photo = jpeg(photograph(options.side))
    executable = next(filter(None, map(shutil.which, BROWSERS)))
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    report = Report("client_module", "", "seconds", "tiles", "long tasks", "longest ms", "timer late ms")
    with tilewire("--models", MODEL) as (_, port), elsewhere() as page, sync_playwright() as playwright:
        url = f"http://127.0.0.1:{port}"
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        for how in ("nothing", "result", "tiles"):
            found = measure(browser, page, photo, [url, KEY, MODEL, options.factor, how])
            report.row(
                how,
                found["seconds"],
                int(found["tiles"]),
                int(found["long"]),
                found["longest"],
                found["late"],
            )
        browser.close()
    report.keep()


if __name__ == "__main__":
    main()
