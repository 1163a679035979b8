"""A real Chromium on the operator's page of a real cache, for tests.

Thread rule: the browser's connection runs on an event loop in a thread of its own, so that it disturbs neither
pytest-asyncio's loops nor other tests; the app is served from threads; tests are plain functions (`in_browser`).
Refuses to know: what the page should show.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import shutil
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import flask
import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Playwright, async_playwright, expect

from stillwarm import Cache
from stillwarm.demo.serving import AppServer
from stillwarm.web._blueprint import blueprint
from stillwarm.web.management import Management

T = TypeVar("T")

HOSTILE = '<img src=x onerror="window.hacked=1">'
PATIENCE = 30_000
NOON = 1_767_268_800  # 2026-01-01 12:00:00 UTC

expect.set_options(timeout=PATIENCE)


class LoopThread:
    """An event loop that runs until `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="browser", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


class Chromium:
    """Debian's browser."""

    def __init__(self) -> None:
        path = shutil.which("chromium")
        assert path is not None, "the page's tests need Debian's package chromium"
        self._home = tempfile.TemporaryDirectory(prefix="stillwarm-", ignore_cleanup_errors=True)
        self.loop = LoopThread()
        self._playwright, self.browser = self.loop.run(self._launch(path))

    async def _launch(self, path: str) -> tuple[Playwright, Browser]:
        playwright = await async_playwright().start()
        # Without its sandbox, which neither root nor a container can have: it sees no page but ours.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        # It keeps what it likes to keep, as its crash reporter's database, out of the user's home.
        home = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), self._home.name)
        return playwright, await playwright.chromium.launch(
            executable_path=path, args=arguments, env={**os.environ, **home}
        )

    def close(self) -> None:
        async def close() -> None:
            await self.browser.close()
            await self._playwright.stop()

        self.loop.run(close())
        self.loop.stop()
        self._home.cleanup()


class Desk:
    """An operator's desk: a cache, its management on a loopback port, and pages in the browser.

    What the browser complains of is collected; `tolerated` says which complaints a test is about.
    """

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium
        self.loop = chromium.loop
        self.cache = Cache(max_entries=5000)
        self.kept: list[Any] = []  # functions, whose entries leave with them
        self.tolerated = r"(?!)"
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._servers: list[AppServer] = []
        self._contexts: list[Any] = []
        self.url = ""

    def serve(self, auth: Any = lambda request: True, prefix: str = "/api/cache", **arguments: Any) -> str:
        app = flask.Flask("desk")
        app.register_blueprint(blueprint(Management(self.cache, auth=auth, prefix=prefix, **arguments)))
        self._servers.append(AppServer(app))
        self.url = self._servers[-1].url + prefix + "/"
        return self.url

    async def open(self, *, frozen: bool = False, wait: str = "#figures", slash: bool = True, **context: Any) -> Page:
        """A page in a context of its own. `frozen`: time stands still at noon, and goes with `page.clock.run_for`."""
        if not self._servers:
            self.serve()
        settings = {
            "reduced_motion": "reduce",
            "timezone_id": "UTC",
            "viewport": {"width": 1280, "height": 900},
            **context,
        }
        opened = await self._chromium.browser.new_context(**settings)
        self._contexts.append(opened)
        opened.set_default_timeout(PATIENCE)
        page = await opened.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("request", lambda request: self.requests.append(request.url))
        await page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.effectiveDirective))"
        )
        if frozen:
            await page.clock.install(time=NOON - 3600)  # it runs until it is stopped, which cannot be in its past
            await page.clock.pause_at(NOON)
        await page.goto(self.url if slash else self.url.rstrip("/"))
        await page.locator(wait).wait_for()
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def stats(self) -> dict[str, Any]:
        """What GET stats says, without the page."""
        with urllib.request.urlopen(f"{self.url}stats", timeout=30) as answer:
            stats: dict[str, Any] = json.load(answer)["cache_stats"]
        return stats

    def unexpected(self) -> list[str]:
        return [complaint for complaint in self.complaints if not re.search(self.tolerated, complaint)]

    async def _leave(self) -> None:
        for context in self._contexts:
            await context.close()

    def close(self) -> None:
        self.loop.run(self._leave())
        for server in self._servers:
            server.stop()
        self.cache.close()


def in_browser(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes a plain test of a coroutine function that has a `desk`: it runs where the browser is."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        fixtures["desk"].loop.run(test(**fixtures))

    return run


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    chromium = Chromium()
    yield chromium
    chromium.close()


@pytest.fixture
def desk(chromium: Chromium) -> Iterator[Desk]:
    """A desk. Afterwards: the browser complained of nothing, and asked nobody but our server."""
    desk = Desk(chromium)
    yield desk
    desk.close()
    assert desk.unexpected() == []
    origin = desk.url.split("/api/")[0].split("/ops/")[0]
    foreign = [url for url in desk.requests if not url.startswith((origin, "data:"))]
    assert desk.requests
    assert foreign == []


def fill(desk: Desk) -> None:
    """Two types: scoring with 40 entries, 40 misses and 320 hits, and search with 10 entries and a failed load."""
    cache = desk.cache
    cache.define("scoring", ttl="1h", tags=["scores"])
    cache.define("search", ttl="1h")

    @cache.cached("scoring", name="score")
    def score(product: int) -> str:
        return "x" * 100

    @cache.cached("search", name="find")
    def find(words: str) -> str:
        if words == "broken":
            raise ConnectionError(f"search-2 said {HOSTILE}")
        return words

    for _ in range(9):
        for product in range(40):
            score(product)
    for number in range(10):
        find(f"shoes {number}")
    with pytest.raises(ConnectionError):
        find("broken")
    desk.kept += [score, find]


async def confirmed(page: Page) -> None:
    await page.locator("#confirm-go").click()
    await expect(page.locator("#confirm")).to_be_hidden()


# Every text that can be seen: its contrast with what is behind it, and what WCAG AA asks for.
LOW_CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const known = new Map();
  const rgba = (color) => known.get(color) ?? (known.set(color, painted(color)), known.get(color));
  const painted = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const luminance = (color) => {
    const [r, g, b] = color.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      layers.push(rgba(getComputedStyle(at).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const bad = [], seen = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const said = walker.currentNode.data.trim().slice(0, 40);
    if (!said || !node.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(node);
    let opacity = 1;
    for (let at = node; at; at = at.parentElement) opacity *= getComputedStyle(at).opacity;
    const ground = behind(node);
    const ink = rgba(node instanceof SVGElement ? style.fill : style.color);
    const text = over([ink[0], ink[1], ink[2], ink[3] * opacity], ground);
    const [a, b] = [luminance(text), luminance(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize), bold = style.fontWeight >= 700;
    seen.push(ratio);
    if (ratio < (size >= 24 || (bold && size >= 18.66) ? 3 : 4.5))
      bad.push(`${node.tagName} ${node.getAttribute("class")} "${said}" ${ratio.toFixed(2)}`);
  }
  return { bad, texts: seen.length };
}"""
