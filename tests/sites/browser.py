"""A real Chromium without a screen, spoken to by the DevTools protocol: real clicks, real keys, screenshots."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import websocket

from .engine import DEADLINE, wait_until

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-extensions",
    "--window-size=1280,900",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
# Virtual key codes, and what the keys write.
KEYS = {"Enter": (13, "\r"), "Escape": (27, "")}
SHIFT = 8


class PageError(AssertionError):
    """The page's own JavaScript raised."""


class Browser:
    """One Chromium with one page, as long as its context."""

    def __init__(self, home: Path) -> None:
        self._profile = home / "chromium"
        self._log = home / "chromium.log"
        self._next = 0

    def __enter__(self) -> Browser:
        self._profile.mkdir()
        with open(self._log, "wb") as log:
            command = ["chromium", *FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
            # A session of its own: whatever it starts is in it, and can be found when it has ended.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            said = self._profile / "DevToolsActivePort"
            self._port = wait_until(
                lambda: self._alive() and said.exists() and said.read_text().split(), "Chromium"
            )[0]
            self._attach(self._pages()[0])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self("Browser.close")
            self._socket.close()
        except (OSError, websocket.WebSocketException):
            pass  # it has ended already, and _end sees to the rest
        self._end()

    def _pages(self) -> list[str]:
        """Addresses of the open pages, the one that was shown last first."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/json/list", timeout=DEADLINE) as answer:
            pages = json.loads(answer.read())
        return [page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"]

    def _attach(self, page: str) -> None:
        self._page = page
        self._socket = websocket.create_connection(page, timeout=DEADLINE)

    def _alive(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return True

    def _end(self) -> None:
        """Chromium's many processes, by their ids: all that are of the session that it was started in."""
        family = [process for process in psutil.process_iter() if _session(process) == self._process.pid]
        _, left = psutil.wait_procs(family, timeout=5)
        for process in left:
            process.kill()
        self._process.wait(DEADLINE)
        psutil.wait_procs(left, timeout=5)

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        self._next += 1
        self._socket.send(json.dumps({"id": self._next, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv())).get("id") != self._next:
            pass  # events, which nobody here waits for
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    # -- the page -------------------------------------------------------------------------------------------

    def go(self, url: str) -> None:
        self("Page.navigate", url=url)

    def follow(self) -> None:
        """To the page that a click has opened; the former one stays open."""
        new = wait_until(lambda: [page for page in self._pages() if page != self._page], "a new page")
        self._socket.close()
        self._attach(new[0])

    def evaluate(self, script: str) -> Any:
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise PageError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, script: str, deadline: float = DEADLINE) -> Any:
        """Until an expression is true; a picture of the page is kept for whoever looks why it was not."""
        end = time.monotonic() + deadline
        while True:
            value = self.evaluate(script)
            if value:
                return value
            if time.monotonic() > end:
                shown = self.evaluate("document.body.innerText")
                raise AssertionError(
                    f"waited {deadline:.0f} s in vain for {script}; the page shows: {shown[-2000:]}"
                )
            time.sleep(0.1)

    def texts(self, selector: str) -> list[str]:
        """The visible texts of all that match."""
        found: list[str] = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            ".filter(each => each.getClientRects().length).map(each => each.innerText)"
        )
        return found

    def wait_text(self, selector: str, text: str, deadline: float = DEADLINE) -> None:
        """Until something visible that matches holds this text."""
        self.wait(f"{_found(selector, text)} !== undefined", deadline)

    def click(self, selector: str, text: str = "") -> None:
        """With the mouse, in the middle of the first visible match that holds the text, once it stands still."""
        place: Any = None
        while (last := place) is None or place != last:
            place = self.wait(
                f"""new Promise(done => setTimeout(() => {{
                    const found = {_found(selector, text)};
                    if (found === undefined) return done(null);
                    found.scrollIntoView({{block: "center", inline: "center"}});
                    const box = found.getBoundingClientRect();
                    done({{x: box.x + box.width / 2, y: box.y + box.height / 2}});
                }}, 50))"""
            )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self("Input.dispatchMouseEvent", type=kind, **place, **button)

    def choose(self, menu: str, title: str, item: str) -> None:
        """Open a menu of the page and click an item; a page that is not yet ready for the first click gets another."""

        def opened() -> bool:
            self.click(menu, title)
            try:
                self.wait(f"{_found('.lm-Menu-itemLabel', item)} !== undefined", deadline=2)
            except AssertionError:
                return False
            return True

        wait_until(opened, f"the menu {title} with {item}")
        self.click(".lm-Menu-itemLabel", item)

    def type(self, text: str) -> None:
        """As if pasted: editors that indent by themselves take it as it is."""
        self("Input.insertText", text=text)

    def press(self, name: str, modifiers: int = 0) -> None:
        number, text = KEYS[name]
        common = {"key": name, "code": name, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", format="png")["data"]))


def _found(selector: str, text: str) -> str:
    """JavaScript: the first visible match that holds the text, or undefined."""
    return (
        f"[...document.querySelectorAll({json.dumps(selector)})].find("
        f"each => each.getClientRects().length && each.innerText.includes({json.dumps(text)}))"
    )


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:
        return -1
