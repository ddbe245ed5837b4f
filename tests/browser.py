"""A headless Chromium for tests of reports, driven through its DevTools protocol; nothing but Chromium is needed."""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--remote-debugging-port=0",
)  # fmt: skip
FOCUSED = """(() => { const e = document.activeElement; if (e === document.body) return null;
  const name = e.id || e.getAttribute('aria-label') || e.textContent.trim();
  return e.tagName + ' ' + name.slice(0, 60) })()"""
CONTROLS = """[...document.querySelectorAll('a[href], button, select, summary, input, [tabindex="0"]')]
  .filter(e => e.checkVisibility()).length"""


@dataclass
class Tab:
    """One page in the browser, and what it did."""

    socket: Any
    problems: list[str] = field(default_factory=list)
    """Console messages and uncaught errors."""
    requests: list[str] = field(default_factory=list)
    """URLs of all requests but those of the page itself and of data inside it."""
    page: str = ""
    _replies: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    _number: int = 0
    _loaded: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        async for message in self.socket:
            reply = json.loads(message.data)
            if "id" in reply:
                self._replies.pop(reply["id"]).set_result(reply)
            else:
                self._note(reply["method"], reply.get("params", {}))

    def _note(self, method: str, values: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(str(values["args"]))
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(values["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.problems.append(values["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = values["request"]["url"]
            if not url.startswith("data:") and url != self.page:
                self.requests.append(url)

    async def call(self, method: str, **values: Any) -> Any:
        self._number += 1
        self._replies[self._number] = asyncio.get_running_loop().create_future()
        waiting = self._replies[self._number]
        await self.socket.send_json({"id": self._number, "method": method, "params": values})
        reply = await asyncio.wait_for(waiting, 60)
        assert "error" not in reply, reply
        return reply["result"]

    async def open(
        self, page: Path, *, width: int = 1280, height: int = 900, media: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Load a file; `media` are emulated features, such as ("prefers-color-scheme", "dark") or ("type", "print")."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        features = [{"name": name, "value": value} for name, value in media if name != "type"]
        await self.call("Emulation.setEmulatedMedia", media=dict(media).get("type", ""), features=features)
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.page = page.resolve().as_uri()
        self._loaded.clear()
        await self.call("Page.navigate", url=self.page)
        await asyncio.wait_for(self._loaded.wait(), 60)

    async def evaluate(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def tab_order(self, most: int = 1000) -> list[str]:
        """What the Tab key reaches, in order, until it leaves the page or returns to the first."""
        reached: list[str] = []
        marks = "document.activeElement.dataset.reached"
        for _ in range(most):
            for kind in ("keyDown", "keyUp"):
                await self.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            name = await self.evaluate(FOCUSED)
            if name is None or await self.evaluate(marks) == "yes":
                break
            await self.evaluate(f"{marks} = 'yes'")
            reached.append(name)
        return reached

    async def picture(self, path: Path) -> None:
        """Save a screenshot of the whole page."""
        height = await self.evaluate("document.documentElement.scrollHeight")
        width = await self.evaluate("window.innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def printed(self, path: Path) -> None:
        """Save the page as it is printed, as PDF."""
        path.write_bytes(base64.b64decode((await self.call("Page.printToPDF", printBackground=True))["data"]))


def in_browser(profile: Path, work: Callable[[Tab], Awaitable[Any]]) -> Any:
    """Run `work` with an empty tab of a new browser, whose profile is in an empty folder."""
    return asyncio.run(_run(profile, work))


async def _run(profile: Path, work: Callable[[Tab], Awaitable[Any]]) -> Any:
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank",
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = b""
        while b"DevTools listening on" not in line:
            line = await asyncio.wait_for(process.stderr.readline(), 120)
            assert line, "Chromium ended"
        port = line.decode().split("/devtools")[0].rsplit(":", 1)[1]
        drain = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                address = next(tab["webSocketDebuggerUrl"] for tab in await reply.json() if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                result = await work(tab)
                listening.cancel()
        return result
    finally:
        process.kill()
        await process.wait()
        drain.cancel()
