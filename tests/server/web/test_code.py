"""A task as code: names of files are strangers' text, and none becomes code."""

import base64
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests.server.support.harness import KEY, PATIENCE, make_image
from tests.server.support.page import Page

HOSTILE = [
    "a\nTASK\ntouch gone\n.png", "$(touch gone).png", "`touch gone`.png", "a'; touch gone; '.png", "-rf.png",
    "a b.png", 'a"b.png', "\\.png", "a\\", "!!.png", "~root.png", "*.png", "a\u202egnp.exe", "\t.png",
    "a\x1b[201~touch gone\r.png", "é ü \U0001f469\u200d\U0001f467.png", "$'x'.png", "#key.png",
    "a\u2028b.png", "{a,b}.png", "%0a.png", "'", "''", "=x", "a&b|c;d<e>f(g)",
]  # fmt: skip
LETTERS = "ab \t\n\r'\"\\$`!#&*()[]{}<>|;~=%-_./\x01\x1b\x7f\x85\u200b\u202e\u2028é漢👩"


def names() -> list[str]:
    chance = random.Random(1)
    made = ("".join(chance.choices(LETTERS, k=chance.randint(1, 12))) for _ in range(500))
    return HOSTILE + list(made)


def test_every_name_is_the_same_name_in_a_shell_and_in_python(page: Page, tmp_path: Path) -> None:
    given = names()
    in_shell, in_python, in_heredoc = page.tab.evaluate(
        """async ([path, names]) => {
            const { inHeredoc, inJson, inPython, inShell } = await import(new URL(path, location.href).href);
            return [names.map(inShell), names.map(inPython), names.map((name) => inHeredoc(inJson(name)))];
        }""",
        [page.module("quoting"), given],
    )
    script = "".join(f"printf '%s\\0' {word}\n" for word in in_shell)
    script += "".join(f"cat <<TASK\n{text}\nTASK\nprintf '\\0'\n" for text in in_heredoc)
    done = subprocess.run(["bash"], input=script.encode(), capture_output=True, cwd=tmp_path, check=True)
    assert done.stderr == b""
    words = [word.decode() for word in done.stdout.split(b"\0")[:-1]]
    assert words[: len(given)] == given
    assert [json.loads(word) for word in words[len(given) :]] == given
    assert [eval(text) for text in in_python] == given  # noqa: S307 - that is what is tested
    assert list(tmp_path.iterdir()) == []
    assert all(letter.isprintable() or letter == " " for text in in_shell for letter in text)


def test_a_task_can_be_copied_as_code_that_runs_and_runs_again_once_edited(
    page: Page, tmp_path: Path
) -> None:
    image = make_image(40, 30)
    name = "my\nTASK\ntouch gone\n'holiday'.png"
    page.tab.set_input_files("#file", [{"name": "x.png", "mimeType": "image/png", "buffer": image}])
    page.tab.evaluate(
        """async ([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/png" }));
            const given = { clipboardData: transfer, bubbles: true };
            document.body.dispatchEvent(new ClipboardEvent("paste", given));
        }""",
        [name, list(image)],
    )
    page.wait_for("ready", 2)
    (tmp_path / name).write_bytes(image)
    page.start()
    page.wait_for("done", 2)
    page.tab.click("#code-button")
    code = {}
    for tab in ("curl", "Python", "JavaScript", "WebSocket"):
        page.tab.click(f"#code-tabs button:text-is('{tab}')")
        code[tab] = page.tab.locator("#code-panel").text_content().replace("YOUR_KEY", KEY)

    def run(*command: str, text: str | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            input=text,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "/images/" in run(sys.executable, "-c", code["Python"])
    result = page.tab.evaluate(
        f"(image) => {{ {code['WebSocket']}; return upscale(image); }}", base64.b64encode(image).decode()
    )
    assert result["cost"] == 0.000001
    if shutil.which("curl"):
        assert json.loads(run("bash", text=code["curl"]))["data"][0]["cost"] == 0.000001
        edited = code["curl"].replace('"upscaleFactor": 2', '"upscaleFactor": 4')
        assert json.loads(run("bash", text=edited))["data"][0]["cost"] == 0.000002
    if shutil.which("node"):
        (tmp_path / "snippet.mjs").write_text(code["JavaScript"], encoding="utf-8")
        run("node", "--check", "snippet.mjs")
    assert not (tmp_path / "gone").exists()
