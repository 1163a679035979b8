"""The operator's page on every screen and in every state: phone, dark, no server, no access, hostile surroundings.

Thread rule: each test has its own cache, server and browser context.
Refuses to know: what the figures are (`test_page`).
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest
from playwright.async_api import Page, expect

import browsing
from browsing import LOW_CONTRAST, Desk, fill, in_browser
from stillwarm import Cache
from stillwarm._redis_server import RedisServer

pytestmark = pytest.mark.browser

TOKEN = "correct-horse-battery-staple"

chromium, desk = browsing.chromium, browsing.desk


async def overflow(page: Page) -> Any:
    return await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


# ------------------------------------------------------------------------------------------------------ in all states


@in_browser
async def test_page_fits_a_phone(desk: Desk) -> None:
    fill(desk)
    long = "a" * 300
    desk.cache.define(long, ttl="1h")
    desk.kept.append(desk.cache.cached(long, name="f")(lambda: 1))
    desk.kept[-1]()
    desk.cache.set(f"k:{long}", 1, ttl="1h")
    for _ in range(50):
        desk.cache.get(f"k:{long}")
    for width in (375, 320):
        page = await desk.open(viewport={"width": width, "height": 812}, has_touch=True, is_mobile=True)
        await expect(page.locator("#keys")).to_contain_text(long)
        assert await overflow(page) == 0
        box = await page.locator("table.types").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert await page.locator(".scroll").evaluate("node => node.scrollWidth - node.clientWidth") == 0
        await page.get_by_role("button", name="Requests as a table").click()
        await page.get_by_role("button", name=f"Invalidate type {long}").click()
        dialog = await page.locator("#confirm").bounding_box()
        assert dialog is not None
        assert dialog["x"] >= 0
        assert dialog["x"] + dialog["width"] <= width
        assert await overflow(page) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@in_browser
async def test_page_has_enough_contrast(desk: Desk, scheme: str) -> None:
    fill(desk)
    desk.serve(alerts={"entries": 10})
    desk.tolerated = "ERR_INTERNET_DISCONNECTED"
    page = await desk.open(color_scheme=scheme)
    await expect(page.locator("#active")).to_be_visible()
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) < 60) == (scheme == "dark")
    seen = await page.evaluate(LOW_CONTRAST)
    assert seen["bad"] == []
    assert seen["texts"] > 150
    await page.get_by_role("button", name="Clear all").click()
    assert (await page.evaluate(LOW_CONTRAST))["bad"] == []
    await browsing.confirmed(page)
    await page.context.set_offline(True)
    await expect(page.locator("#unreachable")).to_be_visible()
    assert (await page.evaluate(LOW_CONTRAST))["bad"] == []


@in_browser
async def test_page_keeps_the_theme_that_was_chosen(desk: Desk) -> None:
    page = await desk.open(color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(colour)
    await page.get_by_role("button", name="Switch to the dark theme").click()
    dark = await page.evaluate(colour)
    assert dark != light
    await page.reload()
    assert await page.evaluate(colour) == dark
    await page.get_by_role("button", name="Switch to the light theme").click()
    assert await page.evaluate(colour) == light


@in_browser
async def test_page_keeps_its_figures_while_the_server_is_away(desk: Desk) -> None:
    fill(desk)
    desk.tolerated = "ERR_INTERNET_DISCONNECTED"
    page = await desk.open(frozen=True)
    rate = await page.locator("#tile-hit-rate").inner_text()
    await page.context.set_offline(True)
    await page.clock.run_for(2000)
    await expect(page.locator("#unreachable")).to_contain_text("Not reachable since 12:00:02")
    for wait in (2, 4, 8, 16, 30, 30):
        await expect(page.locator("#unreachable-next")).to_have_text(f"Next try in {wait} s.")
        await page.clock.run_for(wait * 1000)
    await expect(page.locator("#tile-hit-rate")).to_have_text(rate)
    await expect(page.locator("#updated")).to_have_text("Last figures 12:00:00")
    await expect(page.locator("#state")).to_have_text("UNKNOWN")
    desk.cache.clear()
    await page.context.set_offline(False)
    await page.get_by_role("button", name="Retry now").click()
    await expect(page.locator("#unreachable")).to_be_hidden()
    await expect(page.locator("#announcer")).to_have_text("The server is reachable again.")
    await expect(page.locator("#state")).to_have_text("HEALTHY")
    await expect(page.locator("#tile-entries")).to_have_text("0")


@in_browser
async def test_page_stops_polling_when_paused_or_hidden(desk: Desk) -> None:
    page = await desk.open(frozen=True)
    await page.get_by_role("button", name="Pause").click()
    polls = len(desk.requests)
    await page.clock.run_for(60_000)
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator("#updated")).to_have_text("Live · 12:01:00")
    assert sum("/stats" in url for url in desk.requests[polls:]) == 1
    hide = "(on) => { Object.defineProperty(document, 'hidden', { value: on, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')) }"
    await page.evaluate(hide, True)
    polls = len(desk.requests)
    await page.clock.run_for(60_000)
    await page.keyboard.press("r")  # asks once; what comes back does not start the polling
    await expect(page.locator("#updated")).to_have_text("Live · 12:02:00")
    await page.clock.run_for(60_000)
    await page.evaluate(hide, False)
    await expect(page.locator("#updated")).to_have_text("Live · 12:03:00")
    assert sum("/stats" in url for url in desk.requests[polls:]) == 2


# ---------------------------------------------------------------------------------------------------- who may see it


@in_browser
async def test_page_asks_for_a_token_and_keeps_it_in_the_tab(desk: Desk) -> None:
    fill(desk)
    desk.serve(auth=TOKEN)
    desk.tolerated = "status of 401"
    page = await desk.open(wait="#sign-in")
    await expect(page.locator("#token")).to_be_focused()
    await expect(page.locator("#figures")).to_be_hidden()
    await page.keyboard.type("wrong" * 5)
    await page.keyboard.press("Enter")
    await expect(page.locator("#sign-in-error")).to_have_text("This token was not accepted.")
    await page.locator("#token").fill(TOKEN)
    await page.keyboard.press("Enter")
    await expect(page.locator("#figures")).to_be_visible()
    await page.get_by_role("button", name="Invalidate type search").click()
    await browsing.confirmed(page)
    await expect(page.locator(".toast")).to_contain_text("Type search invalidated.")
    assert TOKEN not in await page.evaluate("JSON.stringify([{ ...localStorage }, document.cookie, location.href])")
    await page.reload()
    await expect(page.locator("#figures")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator("#sign-in")).to_be_visible()
    assert await page.evaluate("sessionStorage.length") == 0


@in_browser
async def test_page_says_when_access_was_taken_away(desk: Desk) -> None:
    allowed = [True]
    desk.serve(auth=lambda request: allowed[0])
    desk.tolerated = "status of 403"
    page = await desk.open(frozen=True)
    allowed[0] = False
    await page.clock.run_for(2000)
    await expect(page.locator("#forbidden")).to_be_visible()
    await expect(page.locator("#figures")).to_be_hidden()
    allowed[0] = True
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator("#figures")).to_be_visible()


@in_browser
async def test_page_works_at_any_prefix_and_without_the_slash(desk: Desk) -> None:
    desk.serve(prefix="/ops/caches/main")
    page = await desk.open(slash=False)
    await expect(page.locator("#state")).to_have_text("HEALTHY")
    assert all("/ops/caches/main" in url for url in desk.requests if url.startswith("http"))


@in_browser
async def test_page_lets_no_foreign_script_run(desk: Desk) -> None:
    desk.tolerated = "CSP|Content Security Policy"
    page = await desk.open()
    await page.evaluate(
        """() => {
          const inline = document.createElement('script');
          inline.textContent = 'window.hacked = 1';
          const foreign = document.createElement('script');
          foreign.src = 'http://127.0.0.1:9/evil.js';
          document.head.append(inline, foreign);
          document.body.setAttribute('onclick', 'window.hacked = 2');
        }"""
    )
    await page.locator("h1").click()
    assert await page.evaluate("window.hacked") is None
    assert len({complaint for complaint in desk.complaints if complaint.startswith("CSP")}) >= 2
    desk.requests = [url for url in desk.requests if ":9/" not in url]  # asked for, and blocked


def test_page_has_no_way_to_make_elements_of_text() -> None:
    files = [file for file in resources.files("stillwarm.web").joinpath("page").iterdir() if file.is_file()]
    assert {"index.html", "page.css", "page.js"} <= {file.name for file in files}
    for file in files:
        text = file.read_text("utf-8")
        assert text.count("\n") <= 400, file.name
        assert not re.search(r"\.(inner|outer)HTML|insertAdjacent|document\.write|\beval\(|new Function", text), (
            file.name
        )
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), file.name
        assert file.name != "index.html" or not re.search(r"\s(on\w+|style)=|<script>|<style", text)


@in_browser
async def test_page_names_the_tier(desk: Desk, warm_redis: RedisServer) -> None:
    desk.cache.close()
    with Cache(warm_redis.new_database(), ttl=60, purge_every=None) as desk.cache:
        page = await desk.open()
        await expect(page.locator("#alerts li", has_text="Redis")).to_contain_text("up")
        await expect(page.locator("#alerts")).not_to_contain_text("Remote tier")


@in_browser
async def test_page_names_no_tier_where_there_is_none(desk: Desk) -> None:
    page = await desk.open()
    await expect(page.locator("#alerts")).to_contain_text("Remote tier")
