"""What the operator's page shows of a real cache, and what its buttons do to it, in a real Chromium.

Thread rule: each test has its own cache, server and browser context.
Refuses to know: how the page is made, beside the ids of its parts.
"""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

import browsing
from browsing import HOSTILE, Desk, fill, in_browser
from stillwarm import _core

pytestmark = pytest.mark.browser

SECOND = 10**9
NO_BREAK = "\N{NO-BREAK SPACE}"

chromium, desk = browsing.chromium, browsing.desk


async def cell(page: Page, type: str, column: str) -> str:
    row = page.locator("table.types tbody tr", has=page.get_by_text(type, exact=True))
    return (await row.locator(f".col-{column} .value").inner_text()).replace(NO_BREAK, " ")


# ------------------------------------------------------------------------------------------------------------ looking


@in_browser
async def test_page_shows_the_figures_of_stats(desk: Desk) -> None:
    fill(desk)
    desk.cache.define("slow", ttl="1h")
    slow = desk.cache.cached("slow")(lambda: _core.clock_set(_core.clock_now() + SECOND // 4))
    for _ in range(1001):
        slow()
    page = await desk.open()
    stats = desk.stats()
    assert stats["total_requests"] == 1372
    plain = {
        "#tile-hit-rate": f"{stats['hit_rate']:.2f} %",
        "#tile-requests-note": "1,372 in total",
        "#tile-memory": f"{stats['bytes'] / 1024:.1f} KB",
        "#tile-entries": f"{stats['entries']}",
        "#tile-evictions": "0",
        "#tile-saved": "4 min 10 s",
        "#state": "HEALTHY",
        "#namespace": "default",
    }
    for place, text in plain.items():
        await expect(page.locator(place)).to_have_text(text)
    scoring = stats["types"]["scoring"]
    assert [await cell(page, "scoring", c) for c in ("hits", "misses", "rate", "loads", "errors", "entries")] == [
        "320", "40", "88.9 %", "40", "0", "40",
    ]  # fmt: skip
    assert await cell(page, "scoring", "bytes") == f"{scoring['bytes'] / 1024:.1f} KB"
    assert await cell(page, "search", "errors") == "1"
    assert await cell(page, "slow", "mean") == "250 ms"
    await expect(page.locator("#keys li")).to_have_count(20)
    details = page.locator("#details div")
    await expect(details.filter(has_text="Fresh hits").locator("dd")).to_have_text("1,320")
    await expect(details.filter(has=page.get_by_text("Loads", exact=True)).locator("dd")).to_have_text("52")
    assert await page.title() == f"{stats['hit_rate']:.1f}{NO_BREAK}% · stillwarm"


@in_browser
async def test_page_shows_rates_between_two_polls(desk: Desk) -> None:
    fill(desk)
    page = await desk.open(frozen=True)
    await page.get_by_role("button", name="Requests as a table").click()
    score = desk.cache.cached("scoring", name="later")(lambda product: product)
    for number in range(10):
        score(number % 2)  # 2 loads, 8 hits
    await page.clock.run_for(2000)
    await expect(page.locator("#updated")).to_have_text("Live · 12:00:02")
    row = page.locator("#chart-requests tbody tr").first
    assert await row.locator("th, td").all_inner_texts() == ["12:00:02", "4.00", "0", "0", "1.00"]
    await expect(page.locator("#tile-requests")).to_have_text("5.00")
    await expect(page.locator("#chart-hit-rate .chart-now")).to_have_text("80.0 %")
    await expect(page.locator("#chart-hit-rate-summary")).to_contain_text("lowest 80.0 %, highest 80.0 %")
    plot = page.get_by_role("slider", name="Hit rate, read by time")
    await plot.press("ArrowLeft")
    await expect(page.locator("#chart-hit-rate .tip")).to_contain_text("12:00:02")
    assert await plot.get_attribute("aria-valuetext") == f"12:00:02: Hit rate 80.0{NO_BREAK}%"
    await page.clock.run_for(2000)  # nothing was asked for: no rate, and no made-up 0 %
    await expect(page.locator("#updated")).to_have_text("Live · 12:00:04")
    await expect(page.locator("#chart-hit-rate .chart-now")).to_have_text("–")


@in_browser
async def test_page_of_an_empty_cache_says_so(desk: Desk) -> None:
    page = await desk.open()
    await expect(page.locator("#tile-hit-rate")).to_have_text("–")
    await expect(page.locator("#tile-hit-rate-note")).to_have_text("No requests yet")
    await expect(page.locator("#types")).to_contain_text("No type has been used yet")
    await expect(page.locator("#keys")).to_contain_text("Nothing is in memory")
    await expect(page.locator("#errors")).to_contain_text("No load has failed")
    assert await page.title() == "stillwarm"


@in_browser
async def test_page_shows_errors_and_alerts_as_they_come(desk: Desk) -> None:
    fill(desk)
    desk.serve(alerts={"errors": 2})
    page = await desk.open(frozen=True)
    await expect(page.locator("#errors li")).to_have_count(1)
    await expect(page.locator("#active")).to_be_hidden()

    @desk.cache.cached("scoring")
    def broken(n: int) -> None:
        raise ValueError("no score")

    for n in range(3):
        with pytest.raises(ValueError, match="no score"):
            broken(n)
    _core.clock_set(_core.clock_now() + 2 * SECOND)  # the server looks at its figures once a second
    await page.clock.run_for(2000)
    await expect(page.locator("#active-list li")).to_contain_text("3 loads failed lately, above 2.")
    await expect(page.locator("#state")).to_have_text("DEGRADED")
    await expect(page.locator("#errors li").first).to_contain_text("ValueError: no score")
    await expect(page.locator("#errors li").first).to_contain_text("12:00:")


@in_browser
async def test_page_sorts_the_types(desk: Desk) -> None:
    fill(desk)
    page = await desk.open()
    names = page.locator("table.types tbody .col-type")
    await expect(names).to_have_text(["scoring", "search"])
    head = page.get_by_role("columnheader", name="Errors")
    await head.get_by_role("button").click()
    await expect(names).to_have_text(["search", "scoring"])
    assert await head.get_attribute("aria-sort") == "descending"
    await head.get_by_role("button").press("Enter")
    await expect(names).to_have_text(["scoring", "search"])
    assert await head.get_attribute("aria-sort") == "ascending"


# ----------------------------------------------------------------------------------------------------------- changing


@in_browser
async def test_page_invalidates_a_type_only_when_confirmed(desk: Desk) -> None:
    fill(desk)
    page = await desk.open()
    button = page.get_by_role("button", name="Invalidate type scoring")
    for leave in ("Cancel", "Escape"):
        await button.click()
        await expect(page.locator("#confirm")).to_contain_text("40 entries")
        if leave == "Cancel":
            await page.get_by_role("button", name="Cancel").click()
        else:
            await page.keyboard.press("Escape")
        await expect(page.locator("#confirm")).to_be_hidden()
        await expect(button).to_be_focused()
    assert not [url for url in desk.requests if "invalidate" in url]
    before = desk.cache.stats()["scoring"].misses
    score = desk.cache.cached("scoring", name="one")(lambda: "x")
    score()
    await button.click()
    await browsing.confirmed(page)
    await expect(page.locator(".toast")).to_contain_text("Type scoring invalidated.")
    score()
    assert desk.cache.stats()["scoring"].misses == before + 2
    assert [url for url in desk.requests if "invalidate" in url] == [f"{desk.url}invalidate/scoring"]


@in_browser
async def test_page_invalidates_by_key_pattern_and_tag(desk: Desk) -> None:
    fill(desk)
    page = await desk.open()
    for label, value, toast, left in (
        ("Key", "find:'shoes 3'", "1 entry left memory", 49),
        ("Pattern", "find:'shoes [12]'", "2 entries left memory", 47),
        ("Pattern", "nothing:*", "Nothing in memory matched", 47),
        ("Tag", "scores", "Tag scores invalidated", 7),
    ):
        field = page.get_by_label(label, exact=True)
        await field.fill(value)
        await field.press("Enter")
        await expect(page.locator("#confirm-subject")).to_have_text(value)
        await browsing.confirmed(page)
        await expect(page.locator(".toast").last).to_contain_text(toast)
        await expect(field).to_be_focused()
        assert len(desk.cache.top(100)) == left


@in_browser
async def test_page_clears_all(desk: Desk) -> None:
    fill(desk)
    page = await desk.open()
    await page.get_by_role("button", name="Clear all").click()
    await expect(page.locator("#confirm")).to_contain_text("All 50 entries")
    await browsing.confirmed(page)
    await expect(page.locator("#tile-entries")).to_have_text("0")
    assert desk.cache.stats().entries == 0


@in_browser
async def test_page_says_why_a_change_was_refused(desk: Desk) -> None:
    fill(desk)
    desk.tolerated = "status of 400"
    page = await desk.open()
    await page.get_by_label("Pattern", exact=True).fill("*" * 40)
    await page.get_by_role("button", name="Invalidate pattern").click()
    await page.locator("#confirm-go").click()
    await expect(page.locator("#confirm-error")).to_contain_text("at most 1024 characters")
    await expect(page.locator("#confirm-go")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#confirm")).to_be_hidden()
    assert desk.cache.stats().entries == 50


@in_browser
async def test_page_shows_hostile_text_as_text(desk: Desk) -> None:
    fill(desk)
    desk.cache.define(HOSTILE, ttl="1h")
    desk.kept.append(desk.cache.cached(HOSTILE, name="f")(lambda: 1))
    desk.kept[-1]()
    desk.cache.set(HOSTILE, 1, ttl="1h")
    desk.cache.set("evil\u202egnp.exe", 2, ttl="1h")
    for _ in range(50):
        desk.cache.get(HOSTILE)
        desk.cache.get("evil\u202egnp.exe")
    page = await desk.open()
    await expect(page.locator("#keys").get_by_text(HOSTILE, exact=True)).to_be_visible()
    await expect(page.locator("#keys").get_by_text("evil\\u202egnp.exe", exact=True)).to_be_visible()
    await expect(page.locator("table.types .col-type", has_text=HOSTILE)).to_be_visible()
    await expect(page.locator("#errors")).to_contain_text(HOSTILE)
    await page.locator("#keys li", has_text=HOSTILE).get_by_role("button").click()
    await expect(page.locator("#confirm-subject")).to_have_text(HOSTILE)
    await browsing.confirmed(page)
    await expect(page.locator(".toast")).to_contain_text(f"Key {HOSTILE} invalidated. 1 entry left memory.")
    assert desk.cache.get(HOSTILE) is None
    assert await page.locator("img").count() == 0
    assert await page.evaluate("window.hacked") is None


@in_browser
async def test_page_can_be_used_by_keyboard_alone(desk: Desk) -> None:
    fill(desk)
    page = await desk.open()
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the figures")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await page.keyboard.press("i")
    await expect(page.get_by_label("Key", exact=True)).to_be_focused()
    await page.keyboard.type("find:'shoes 7'")  # letters in a field are no shortcuts
    await page.keyboard.press("Enter")
    await expect(page.locator("#confirm-cancel")).to_be_focused()
    ring = await page.locator("#confirm-cancel").evaluate("node => getComputedStyle(node).outlineStyle")
    assert ring == "solid"
    for expected in ("confirm-go", "confirm-cancel", "confirm-go"):  # it goes round
        await page.keyboard.press("Tab")
        await expect(page.locator(f"#{expected}")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(".toast")).to_contain_text("1 entry left memory")
    await expect(page.get_by_label("Key", exact=True)).to_be_focused()
    await page.get_by_label("Key", exact=True).blur()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await page.get_by_label("Single-letter shortcuts are on").press("Space")
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_have_count(0)
