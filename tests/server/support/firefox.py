"""The Firefox that is installed, driven by WebDriver BiDi: https://w3c.github.io/webdriver-bidi/

Playwright drives only a Firefox of its own build. The methods have the names and the meaning of Playwright's,
as many as `Shop` calls: it opens its pages in either browser.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.server.support.harness import PATIENCE

_NAMES = ("firefox-esr", "firefox")
_PREFERENCES = """
user_pref("network.dns.native-is-localhost", true);  // it finds no other machine
user_pref("network.dns.native_https_query", false);
user_pref("network.proxy.type", 0);
user_pref("network.trr.mode", 5);
user_pref("app.update.disabledForTesting", true);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
"""


@contextmanager
def running_firefox() -> Iterator["Firefox"]:
    """A browser for many tabs, in a new profile; skipped where none is installed."""
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        pytest.skip("nothing is tested in Firefox: firefox-esr is not installed")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder, "user.js").write_text(_PREFERENCES, encoding="utf-8")
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [executable, "--headless", "--profile", folder, "--remote-debugging-port=0"],
                env=os.environ | {"HOME": folder},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            url = f"{_address(process, log)}/session"
            with connect(url, open_timeout=PATIENCE, ping_interval=None, max_size=None, proxy=None) as socket:
                yield Firefox(socket)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # those that it started as well
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, once it does."""
    deadline = time.monotonic() + PATIENCE
    while not (match := re.search(r"BiDi listening on (\S+)\n", text := log.read_text("utf-8", "replace"))):
        assert process.poll() is None, f"Firefox ended: {text}"
        assert time.monotonic() < deadline, f"Firefox does not listen: {text}"
        time.sleep(0.05)
    return match[1]


class Firefox:
    """A session.

    Attributes:
        patience: seconds that a command may take.
        listeners: what is called with each error that nothing caught, by browsing context.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count()
        self.patience = PATIENCE
        self.listeners: dict[str | None, Callable[[str], object]] = {}
        self.command("session.new", capabilities={})
        self.command("session.subscribe", events=["log.entryAdded"])

    def command(self, method: str, **parameters: Any) -> Any:
        """What a command results in. Events that come before are taken."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        deadline = time.monotonic() + self.patience
        while True:
            message = json.loads(self._socket.recv(deadline - time.monotonic()))
            if message["type"] == "event":
                self._take(message["params"])
            elif message["id"] == number:
                assert message["type"] == "success", message
                return message["result"]

    def _take(self, entry: dict[str, Any]) -> None:
        listener = self.listeners.get(entry["source"].get("context"))
        # A connection that fails is logged as an error as well, without a stack.
        if listener is not None and entry["type"] == "javascript" and "stackTrace" in entry:
            listener(entry["text"])

    def new_context(self) -> "Context":
        return Context(self)


class Context:
    """Tabs that share nothing with those of other contexts."""

    def __init__(self, browser: Firefox) -> None:
        self._browser = browser
        self._id = browser.command("browser.createUserContext")["userContext"]

    def new_page(self) -> "Tab":
        opened = self._browser.command("browsingContext.create", type="tab", userContext=self._id)
        return Tab(self._browser, opened["context"])

    def close(self) -> None:
        self._browser.command("browser.removeUserContext", userContext=self._id)


class Tab:
    """One tab: a browsing context."""

    def __init__(self, browser: Firefox, browsing_context: str) -> None:
        self._browser = browser
        self._id = browsing_context

    def set_default_timeout(self, milliseconds: float) -> None:
        self._browser.patience = milliseconds / 1000

    def on(self, event: str, listener: Callable[[str], object]) -> None:
        assert event == "pageerror"
        self._browser.listeners[self._id] = listener

    def goto(self, url: str) -> None:
        self._browser.command("browsingContext.navigate", context=self._id, url=url, wait="complete")

    def evaluate(self, function: str, given: Any = None) -> Any:
        """What a function returns, or what its promise is resolved with; as JSON, so undefined is None."""
        called = self._browser.command(
            "script.callFunction",
            functionDeclaration=f"async (given) => JSON.stringify(await ({function})(JSON.parse(given)))",
            arguments=[{"type": "string", "value": json.dumps(given)}],
            awaitPromise=True,
            target={"context": self._id},
        )
        assert called["type"] == "success", called["exceptionDetails"]["text"]
        return json.loads(called["result"].get("value", "null"))

    def wait_for_function(self, expression: str) -> None:
        pause = "new Promise((resolve) => setTimeout(resolve, 20))"
        self.evaluate(f"async () => {{ while (!({expression})) await {pause}; }}")

    def wait_for_timeout(self, milliseconds: float) -> None:
        time.sleep(milliseconds / 1000)
