"""The operator's page and idempotency keys whose outcome is unknown: what it shows, asks and does, in a real Chromium.

Thread rule: each test has its own cache, server and browser context.
Refuses to know: when an outcome is unknown (test_idempotent_failures), and the endpoints (test_idempotent_operators).
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

import browsing
from browsing import HOSTILE, LOW_CONTRAST, Desk, fill, in_browser
from stillwarm.errors import TierUnavailable
from stillwarm.web import _unknown
from tiers import Ground
from unknowing import ROUTE, SECRET, broken, record_of
from writing import code

pytestmark = pytest.mark.browser

chromium, desk = browsing.chromium, browsing.desk


async def later(page: Page) -> None:
    """The records are asked for every ten seconds."""
    await page.clock.run_for(10_000)
    await page.keyboard.press("r")


@in_browser
async def test_page_shows_unknown_keys_only_where_there_are_any(desk: Desk) -> None:
    page = await desk.open(frozen=True)
    await expect(page.locator("#state")).to_have_text("HEALTHY")
    await expect(page.locator("#unknown")).to_be_hidden()
    broken(Ground(None), desk.cache, "one", "two")
    await later(page)
    section = page.get_by_role("region", name="Unknown idempotency keys")
    await expect(section).to_be_visible()
    await expect(section.locator("#unknown-count")).to_have_text("2 keys")
    await expect(section.locator("li")).to_have_count(2)
    row = section.locator("li", has_text=record_of("one"))
    await expect(row).to_contain_text(ROUTE)
    await expect(row).to_contain_text(re.compile("begun 3[1-9](\\.\\d)?\\ss ago"))
    await expect(row).to_contain_text(re.compile("expires in 2[34]\\sh|expires in 1\\sd"))
    assert SECRET.decode() not in await page.content()


@in_browser
async def test_page_releases_an_unknown_key_only_when_confirmed(desk: Desk) -> None:
    writes = broken(Ground(None), desk.cache)
    page = await desk.open()
    button = page.get_by_role("button", name=f"Release key {record_of()}")
    await button.click()
    await expect(page.locator("#confirm")).to_contain_text("The next request with this key runs the handler again.")
    await expect(page.locator("#confirm-subject")).to_have_text(f"{ROUTE} · {record_of()}")
    await expect(page.locator("#confirm-cancel")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#confirm")).to_be_hidden()
    await expect(button).to_be_focused()
    assert not [url for url in desk.requests if "release" in url]
    assert code(writes.ask()) == "outcome-unknown"
    await button.click()
    await browsing.confirmed(page)
    await expect(page.locator(".toast")).to_contain_text(f"A key of {ROUTE} is released.")
    await expect(page.locator("#unknown")).to_be_hidden()
    await expect(page.locator("#main")).to_be_focused()
    assert writes.executed == 1
    assert writes.ask().body == SECRET
    assert writes.executed == 2


@in_browser
async def test_page_says_that_a_key_was_released_by_somebody_else(desk: Desk) -> None:
    broken(Ground(None), desk.cache)
    desk.tolerated = "status of 404"
    page = await desk.open()
    await page.get_by_role("button", name=f"Release key {record_of()}").click()
    _unknown.released(desk.cache, record_of())
    await page.locator("#confirm-go").click()
    await expect(page.locator("#confirm-error")).to_contain_text("it is running, done, released or expired")
    await page.keyboard.press("Escape")


@in_browser
async def test_page_goes_on_where_the_records_cannot_be_read(desk: Desk) -> None:
    fill(desk)

    def away(*_: Any) -> Any:
        raise TierUnavailable(f"no route to postgresql://shop:hunter2secret@db/x {HOSTILE}")

    desk.tolerated = "status of 503"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_unknown, "unknown", away)
        page = await desk.open(frozen=True)
        await expect(page.locator("#unknown-list")).to_contain_text("the records cannot be read: no route to")
        await expect(page.locator("#unknown-list")).to_contain_text(HOSTILE)
        await expect(page.locator("#state")).to_have_text("HEALTHY")
        assert "hunter2secret" not in await page.content()
    await later(page)
    await expect(page.locator("#unknown")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@in_browser
async def test_page_unknown_keys_fit_a_phone_and_have_enough_contrast(desk: Desk, scheme: str) -> None:
    broken(Ground(None), desk.cache)
    for width in (1280, 375, 320):
        page = await desk.open(color_scheme=scheme, viewport={"width": width, "height": 812}, has_touch=width < 400)
        await expect(page.locator("#unknown li")).to_have_count(1)
        assert (await page.evaluate(LOW_CONTRAST))["bad"] == []
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.evaluate(wide) == 0
        for place in ("#unknown .mono >> nth=0", "#unknown .tag", "#unknown button"):
            box = await page.locator(place).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width, place
        await page.get_by_role("button", name=f"Release key {record_of()}").click()
        assert (await page.evaluate(LOW_CONTRAST))["bad"] == []
        assert await page.evaluate(wide) == 0
        await page.keyboard.press("Escape")
