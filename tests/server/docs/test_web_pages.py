"""The page and the React hook of the documentation run as written, but for the address, at another origin."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.docs.pages import EXAMPLE_ADDRESS
from server.serving import EmbeddedServer
from tests.server.docs.test_examples import examples
from tests.server.support.harness import make_image
from tests.server.support.npm import npm_install
from tests.server.support.page import running_browser
from tests.server.support.shop import Shop

PHOTO = {"name": "photo.png", "mimeType": "image/png", "buffer": make_image(40, 30)}
COMPILER = ("node", "node_modules/typescript/bin/tsc", "--allowJs", "--noCheck", "--jsx", "react-jsx")


@pytest.fixture
def shop(server: EmbeddedServer) -> Iterator[Shop]:
    with running_browser() as browser:
        shop = Shop(browser, server)
        yield shop
        shop.close()
        assert shop.complaints == []


def code(shop: Shop, language: str, naming: str) -> str:
    (example,) = examples(language, naming)
    return example.code.replace(EXAMPLE_ADDRESS, shop.server.url.removeprefix("http://"))


def width_of_canvas(shop: Shop) -> int:
    width: int = shop.tab.evaluate("() => document.querySelector('canvas').width")
    return width


def test_the_page_has_twenty_lines_and_shows_a_result(shop: Shop) -> None:
    page = code(shop, "html", "/client.js")
    assert len(page.strip().splitlines()) <= 21
    shop.files["/page"] = ("text/html", page)
    shop.tab.goto(f"{shop.origin}/page")
    shop.tab.set_input_files("input", PHOTO)
    shop.until("document.querySelector('output').textContent === 'done'")
    assert width_of_canvas(shop) == 80


def as_module(source: str, needs: dict[str, str], gives: list[str]) -> str:
    """A CommonJS module as one that browsers load.

    Args:
        needs: the address of each module that it asks for.
        gives: the names that are asked of it.
    """
    imports = "".join(f"import _{at} from '{path}';\n" for at, path in enumerate(needs.values()))
    known = ", ".join(f"'{name}': _{at}" for at, name in enumerate(needs))
    return f"""{imports}
const module = {{ exports: {{}} }};
((module, exports, require, process) => {{
{source}
}})(module, module.exports, (name) => ({{ {known} }})[name], {{ env: {{ NODE_ENV: "production" }} }});
export default module.exports;
export const {{ {", ".join(gives)} }} = module.exports;
"""


def react(packages: Path) -> dict[str, str]:
    """The modules of React, by what they are served as."""

    def read(name: str) -> str:
        return (packages / name).read_text("utf-8")

    dom = {"scheduler": "/scheduler.js", "react": "/react.js", "react-dom": "/react-dom.js"}
    return {
        "/react.js": as_module(
            read("react/cjs/react.production.js"), {}, ["useEffect", "useRef", "useState", "createElement"]
        ),
        "/jsx.js": as_module(
            read("react/cjs/react-jsx-runtime.production.js"), {"react": "/react.js"}, ["jsx", "jsxs"]
        ),
        "/scheduler.js": as_module(read("scheduler/cjs/scheduler.production.js"), {}, []),
        "/react-dom.js": as_module(read("react-dom/cjs/react-dom.production.js"), {"react": "/react.js"}, []),
        "/client.js": as_module(read("react-dom/cjs/react-dom-client.production.js"), dom, ["createRoot"]),
    }


def test_the_hook_for_react_shows_progress_and_a_result(shop: Shop, tmp_path: Path) -> None:
    npm_install(tmp_path, "react@19", "react-dom@19", "typescript@5")
    (tmp_path / "larger.jsx").write_text(code(shop, "jsx", "useUpscale"), encoding="utf-8")
    target = ("--module", "es2022", "--target", "es2022", "--outDir", "out", "larger.jsx")
    subprocess.run([*COMPILER, *target], cwd=tmp_path, check=True)
    modules = react(tmp_path / "node_modules") | {
        "/larger.js": (tmp_path / "out" / "larger.js").read_text("utf-8")
    }
    shop.files |= {path: ("text/javascript", text) for path, text in modules.items()}
    names: dict[str, Any] = {
        "react": "/react.js",
        "react/jsx-runtime": "/jsx.js",
        "react-dom/client": "/client.js",
        "tilewire": f"{shop.server.url}/client.js",
    }
    shop.files["/page"] = (
        "text/html",
        f"""<!doctype html><input type="file"><div id="root"></div>
        <script type="importmap">{json.dumps({"imports": names})}</script>
        <script type="module">
            import {{ createElement }} from "react";
            import {{ createRoot }} from "react-dom/client";
            import {{ Larger }} from "/larger.js";
            const root = createRoot(document.getElementById("root"));
            const show = (file) => root.render(createElement(Larger, {{ file }}));
            document.querySelector("input").onchange = ({{ target }}) => show(target.files[0]);
            show(null);
        </script>""",
    )
    shop.tab.goto(f"{shop.origin}/page")
    shop.tab.wait_for_selector("figcaption:text('0 %')")
    shop.tab.set_input_files("input", PHOTO)
    shop.tab.wait_for_selector("figcaption:text('80 × 60')")
    assert width_of_canvas(shop) == 80
