"""`/client.js`, as a page of another origin uses it in Chromium and Firefox, with nothing but tokens."""

import base64
import gzip
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import msgspec
import pytest

from server.http.client_module import write_package
from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import KEY, charges, open_account
from tests.server.support.network import running_network, to_url
from tests.server.support.npm import npm_install
from tests.server.support.process import REPOSITORY
from tests.server.support.shop import Shop
from tests.server.support.stepped_device import SteppedDevice

OpenShop = Callable[..., Shop]

IN_CHROMIUM = pytest.param("browser", id="chromium")
in_both_browsers = pytest.mark.parametrize(
    "open_shop", [IN_CHROMIUM, pytest.param("firefox", id="firefox")], indirect=True
)
"""In Firefox, too, whenever it runs; others with the slow tests."""

FOLLOW = """
    const client = open();
    const options = { model, factor: 4, tiles: true, format: "PNG" };
    const task = client.upscale(made(700, 500), options);
    window.events = [];
    try {
        for await (const event of task) {
            window.events.push(event.type);
            if (event.type === "tile") await paint(document.querySelector("canvas"), event);
        }
        const { width, height, cost, blob } = await task;
        return { width, height, cost, size: blob.size, type: blob.type };
    } catch (error) {
        return said(error);
    }
"""


@pytest.fixture(params=[IN_CHROMIUM, pytest.param("firefox", id="firefox", marks=pytest.mark.slow)])
def open_shop(request: pytest.FixtureRequest) -> Iterator[OpenShop]:
    """Opens pages in the browser that a fixture gives."""
    browser = request.getfixturevalue(request.param)
    shops: list[Shop] = []

    def open_shop(server: EmbeddedServer, **options: Any) -> Shop:
        shops.append(Shop(browser, server, **options))
        return shops[-1]

    yield open_shop
    for shop in shops:
        shop.close()
        assert shop.complaints == []


def test_it_is_small_and_may_be_loaded_by_pages_of_other_origins(server: EmbeddedServer) -> None:
    for path, kind in (("/client.js", "text/javascript"), ("/client.d.ts", "application/typescript")):
        answer = httpcore.request("GET", server.url + path, headers={"Origin": "https://shop.example"})
        headers = {name.decode().lower(): value.decode() for name, value in answer.headers}
        assert answer.status == 200
        assert headers["content-type"].startswith(kind)
        assert headers["access-control-allow-origin"] == "*"
        assert len(gzip.compress(answer.content)) <= 12 * 1024


@in_both_browsers
def test_a_file_is_upscaled_with_events_and_tiles_that_are_painted(
    server: EmbeddedServer, open_shop: OpenShop
) -> None:
    shop = open_shop(server)
    result = shop.run(FOLLOW, {})
    assert (result["width"], result["height"], result["type"]) == (2800, 2000, "image/png")
    assert result["cost"] > 0
    events = shop.run("return window.events")
    assert events[0] == "upload"
    assert {"upload", "progress", "tile"} <= set(events)
    size, middle, corner = shop.run(
        """
        const canvas = document.querySelector("canvas");
        const pixel = (x, y) => [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
        return [[canvas.width, canvas.height], pixel(1400, 1000), pixel(2790, 1990)];
        """
    )
    assert size == [2800, 2000]
    assert middle[3] == corner[3] == 255, "a tile is missing"
    assert middle != corner
    size = shop.run(
        """
        const canvas = document.querySelector("canvas");
        const place = { x: 3000, y: 2000, width: 3000, height: 2000, imageWidth: 6000, imageHeight: 4000 };
        await paint(canvas, { blob: await made(30, 20), ...place });
        return [canvas.width, canvas.height];
        """
    )
    assert size == [3000, 2000], "a larger canvas would hold up the page"


def test_everything_that_is_an_image_is_taken_and_the_rest_refused(
    server: EmbeddedServer, open_shop: OpenShop
) -> None:
    sizes, refused = open_shop(server).run(
        """
        const client = open();
        const blob = await made(24, 16);
        const pixels = new ImageData(24, 16);
        pixels.data.fill(200);
        const first = await client.upscale(blob, { model, factor: 2 });
        const sources = [
            new File([blob], "a.png"), URL.createObjectURL(blob), pixels, await createImageBitmap(blob),
            await blob.arrayBuffer(), new Uint8Array(await blob.arrayBuffer()), made(24, 16, 3),
        ];
        const sizes = [];
        for (const format of ["JPG", "PNG", "WEBP"]) {
            for (const source of sources) {
                const { width, height, blob } = await client.upscale(source, { model, factor: 2, format });
                const shown = await createImageBitmap(blob);
                sizes.push([width, height, shown.width, shown.height].join());
            }
        }
        const noise = new ImageData(400, 400); // large: its result is fetched
        for (let at = 0; at < noise.data.length; at++) noise.data[at] = (at * 2654435761) >>> 13;
        sizes.push((await client.upscale(noise, { model, factor: 1 })).width);
        sizes.push((await client.upscale(first.uuid, { model, factor: 1 })).width);
        sizes.push((await client.upscale(first.url, { model, factor: 1 })).width);
        const refused = [];
        for (const source of [{}, "http://", new Blob(["no picture"])]) {
            refused.push(await client.upscale(source, { model }).catch(said));
        }
        refused.push(await client.upscale(blob, { model: "none" }).catch(said));
        refused.push(await client.upscale(blob, { model, factor: 99 }).catch(said));
        await client.close();
        refused.push(await client.upscale(blob).catch(said));
        return [sizes, refused];
        """
    )
    assert set(sizes) == {"48,32,48,32", 400, 48}
    assert [error["code"] for error in refused] == [
        "invalidSource", "invalidSource", "invalidImage", "invalidModel", "invalidUpscaleFactor", "closed",
    ]  # fmt: skip
    assert {error["name"] for error in refused} == {"TilewireError"}
    assert refused[4]["parameter"] == "upscaleFactor"


def test_pixels_are_taken_and_given_as_they_are(server: EmbeddedServer, open_shop: OpenShop) -> None:
    width, height, corner, code = open_shop(server).run(
        """
        const client = open();
        const pixels = new ImageData(24, 16);
        for (let at = 0; at < pixels.data.length; at += 4) pixels.data.set([200, 100, 50, 255], at);
        const result = await client.upscalePixels(pixels, { model, factor: 2 });
        const { code } = await client.upscalePixels(pixels, { model, factor: 99 }).catch(said);
        return [result.width, result.height, [...result.data.slice(0, 4)], code];
        """
    )
    assert (width, height, code) == (48, 32, "invalidUpscaleFactor")
    assert all(abs(one - other) < 8 for one, other in zip(corner, (200, 100, 50, 255), strict=True))


@pytest.mark.slow
def test_transparency_is_kept_unless_another_format_is_asked_for(
    server: EmbeddedServer, open_shop: OpenShop
) -> None:
    kinds = open_shop(server).run(
        """
        const client = open();
        const pixels = new ImageData(24, 16);
        const kinds = [];
        for (const options of [{}, { format: "JPG" }]) {
            const { blob } = await client.upscale(pixels, { model, factor: 2, ...options });
            kinds.push(blob.type);
        }
        return kinds;
        """
    )
    assert kinds == ["image/png", "image/jpeg"]


@in_both_browsers
def test_a_task_goes_on_after_the_network_was_away_and_is_charged_once(
    start_server: StartServer, open_shop: OpenShop, device: SteppedDevice
) -> None:
    server = start_server()
    account = open_account(server)
    with running_network(to_url(server.url)) as network:
        shop = open_shop(server, address=network.url)
        shop.key = account.key
        shop.begin(FOLLOW, {})
        device.step()
        shop.until("window.events?.includes('tile')")
        back = network.connect
        tries = []

        async def away() -> Any:
            tries.append(1)
            raise OSError

        network.connect = away
        network.cut_all()
        shop.until(lambda: len(tries) >= 2)
        device.run_freely()
        network.connect = back
        assert shop.ended()["width"] == 2800
    assert charges(server, account.id)[1] == 1


def test_a_token_that_expires_in_mid_task_is_renewed_and_the_session_goes_on(
    start_server: StartServer, open_shop: OpenShop, device: SteppedDevice
) -> None:
    shop = open_shop(start_server())
    shop.wanted |= {"expiresIn": 1}
    shop.begin(FOLLOW, {})
    device.step()
    shop.until(lambda: len(shop.tokens) >= 3)
    device.run_freely()
    assert shop.ended()["width"] == 2800
    assert shop.run("return window.events")[-1] in ("tile", "progress")


@pytest.mark.slow
def test_a_token_that_was_given_as_it_is_ends_with_an_error_that_says_so(
    server: EmbeddedServer, open_shop: OpenShop
) -> None:
    shop = open_shop(server)
    shop.wanted |= {"expiresIn": 1}
    code = shop.run(
        """
        const client = new Tilewire(url, (await token()).token);
        for (;;) {
            try {
                await client.models();
            } catch (error) {
                return error.code;
            }
        }
        """
    )
    assert code == "tokenExpiredApiKey"


@pytest.mark.parametrize("open_shop", [IN_CHROMIUM], indirect=True)
def test_a_hidden_tab_gets_its_result(
    start_server: StartServer, open_shop: OpenShop, device: SteppedDevice
) -> None:
    shop = open_shop(start_server())
    shop.begin(FOLLOW, {})
    device.step()
    shop.until("window.events?.includes('tile')")
    hidden = shop.context.new_cdp_session(shop.tab)
    hidden.send("Emulation.setFocusEmulationEnabled", {"enabled": False})
    front = shop.open_tab()
    front.bring_to_front()
    shop.tab.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { get: () => true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    device.run_freely()
    assert shop.ended()["width"] == 2800


def test_twenty_files_at_once_are_all_done_and_are_sent_one_after_the_other(
    server: EmbeddedServer, open_shop: OpenShop
) -> None:
    widths, order = open_shop(server).run(
        """
        const client = open();
        const files = await Promise.all(Array.from({ length: 20 }, (_, index) => made(24, 16, index)));
        const tasks = files.map((file) => client.upscale(file, { model, factor: 2 }));
        const order = new Set();
        const follow = async (task, index) => {
            for await (const { sent, total } of task) if (total && sent === total) order.add(index);
        };
        await Promise.all(tasks.map(follow));
        return [(await Promise.all(tasks)).map(({ width }) => width), [...order]];
        """
    )
    assert widths == [48] * 20
    assert order == sorted(order)


def test_what_is_aborted_is_cancelled_on_the_server(
    start_server: StartServer, open_shop: OpenShop, device: SteppedDevice
) -> None:
    server = start_server()
    shop = open_shop(server)
    for abort, code in (("stop.abort()", None), ("task.cancel()", None), ("client.close()", "closed")):
        shop.begin(
            """
            const client = window.client = open(), stop = window.stop = new AbortController();
            const { signal } = stop;
            const task = window.task = client.upscale(made(40, 30), { model, factor: 4, signal });
            return task.then(() => "done", (error) => ({ name: error.name, code: error.code }));
            """
        )
        shop.until(lambda: server.services.runner.count == 1)
        shop.tab.evaluate(f"() => {{ {abort}; }}")
        error = shop.ended()
        assert error["name"] == ("AbortError" if code is None else "TilewireError")
        assert code is None or error["code"] == code
        shop.until(lambda: server.services.runner.count == 0)
    never = "return open().upscale(made(9, 9), { signal: AbortSignal.abort() }).catch(({ name }) => name)"
    assert shop.run(never) == "AbortError"


def test_without_a_server_a_task_fails_once_patience_runs_out(
    server: EmbeddedServer, open_shop: OpenShop
) -> None:
    shop = open_shop(server, address="http://127.0.0.1:9")
    error = shop.run("return open({ patience: 0.5 }).upscale(made(9, 9)).catch(said)")
    assert error["code"] == "unreachable"


def test_it_works_in_a_worker(server: EmbeddedServer, open_shop: OpenShop) -> None:
    width = open_shop(server).run(
        """
        const code = `
            import { Tilewire } from "${url}/client.js";
            onmessage = async ({ data: { token, file } }) => {
                const client = new Tilewire("${url}", token);
                const { width } = await client.upscale(file, { model: "${model}", factor: 2 });
                await client.close();
                postMessage(width);
            };`;
        const worker = new Worker(
            URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" }
        );
        worker.postMessage({ token: (await token()).token, file: await made(24, 16) });
        return new Promise((resolve, reject) => {
            worker.onmessage = ({ data }) => resolve(data);
            worker.onerror = reject;
        });
        """
    )
    assert width == 48


def test_messagepack_is_read_and_written_as_others_do(server: EmbeddedServer, open_shop: OpenShop) -> None:
    values = [
        None, True, False, 0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**40, -1, -32, -33, -128, -129,
        -40_000, -(2**40), 0.5, 1e300, "", "tile", "ü" * 20, "x" * 40, "x" * 300, "x" * 70000, [], [1, [2]],
        list(range(20)), {}, {"name": {"nested": [None]}}, {str(number): number for number in range(20)},
    ]  # fmt: skip
    shop = open_shop(server)
    module = REPOSITORY / "server" / "web" / "client" / "messagepack.js"
    shop.files["/messagepack.js"] = ("text/javascript", module.read_text("utf-8"))
    written, with_file, read = shop.run(
        """
        const { encode, decode } = await import("/messagepack.js");
        const text = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
        const bytes = Uint8Array.from(atob(given.packed), (letter) => letter.charCodeAt(0));
        const end = new Uint8Array([0, 255]);
        const blob = encode([...given.values, new Blob([end])]);
        const decoded = decode(bytes.buffer);
        return [
            text(encode([...given.values, end])),
            text(new Uint8Array(await blob.arrayBuffer())),
            [...decoded.slice(0, -1), Array.from(decoded.at(-1))],
        ];
        """,
        {"values": values, "packed": base64.b64encode(msgspec.msgpack.encode([*values, b"\0\xff"])).decode()},
    )
    for encoded in (written, with_file):
        assert msgspec.msgpack.decode(base64.b64decode(encoded)) == [*values, b"\0\xff"]
    assert read == [*values, [0, 255]]


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with TypeScript."""
    directory = tmp_path_factory.mktemp("typescript")
    npm_install(directory, "typescript@5")
    return directory


def check_types(directory: Path, *arguments: str) -> None:
    options = {"target": "es2022", "module": "esnext", "moduleResolution": "bundler"}
    options["lib"] = "es2023,dom,dom.iterable,dom.asynciterable"
    given = [text for name, value in options.items() for text in (f"--{name}", value)]
    compiler = ["node", "node_modules/typescript/bin/tsc", "--noEmit", "--strict", *given]
    done = subprocess.run(
        [*compiler, *arguments], cwd=directory, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


USE = """
import { Tilewire, TilewireError, paint, type Result, type UpscaleEvent } from "./package/client.js";
const token = async () => (await fetch("/t", { method: "POST" })).json();
const tilewire = new Tilewire("https://up.example", token);
const canvas = document.createElement("canvas");
const signal = AbortSignal.timeout(9);
const task = tilewire.upscale(new File([], "a"), { model: "fast", factor: 2, tiles: true, signal });
for await (const event of task) {
  const one: UpscaleEvent = event;
  if (event.type === "tile") await paint(canvas, event);
  else if (event.type === "queued") console.log(event.position + 1, one);
}
const result: Result = await task;
await paint(canvas, result);
console.log(result.width + 1, result.blob.size);
// @ts-expect-error there is no such option
tilewire.upscale(new Blob(), { modle: "fast" });
// @ts-expect-error a number is no image
tilewire.upscale(3);
try {
  await Promise.all([tilewire.upscale(new URL("https://a/b.png")), tilewire.upscale(new ImageData(1, 1))]);
} catch (error) {
  if (error instanceof TilewireError) console.log(error.code, error.parameter?.length, error.taskUUID);
}
await tilewire.close();
"""


def test_the_types_say_what_there_is(typescript: Path) -> None:
    write_package(typescript / "package")
    (typescript / "use.ts").write_text(USE, encoding="utf-8")
    check_types(typescript, "use.ts")
    shutil.copytree(REPOSITORY / "server" / "web" / "client", typescript / "client", dirs_exist_ok=True)
    (typescript / "same.ts").write_text(
        """
        import * as declared from "./package/client.js";
        import { Tilewire } from "./client/tilewire.js";
        import { TilewireError } from "./client/errors.js";
        import { paint } from "./client/paint.js";
        export const tilewire: declared.Tilewire = new Tilewire("https://up.example", "twt_");
        export const error: declared.TilewireError = new TilewireError({ code: "a", message: "b" });
        export const painting: typeof declared.paint = paint;
        """,
        encoding="utf-8",
    )
    check_types(typescript, "--checkJs", "--allowJs", "same.ts")


def test_it_can_be_packed_for_npm_and_used_in_node(server: EmbeddedServer, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node or npm is not installed")
    write_package(tmp_path / "package")
    packed = subprocess.run(
        [npm, "pack", "--json", "./package"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True
    )
    (archive,) = json.loads(packed.stdout)
    assert sorted(file["path"] for file in archive["files"]) == ["client.d.ts", "client.js", "package.json"]
    npm_install(tmp_path, f"./{archive['filename']}")
    script = """
        import { Tilewire, TilewireError, paint } from "tilewire";
        console.log([Tilewire, TilewireError, paint].every((each) => typeof each === "function"));
    """
    (tmp_path / "use.mjs").write_text(script, encoding="utf-8")
    used = subprocess.run([node, "use.mjs"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert used.stdout.strip() == "true", used.stderr
    assert KEY not in used.stdout
