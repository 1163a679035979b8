"""The interactive demo in a pseudo-terminal, with real key strokes: each item, wrong input, both ends, any terminal.

Thread rule: one terminal.
Refuses to know: what the story shows (`test_demo`, `test_demo_redis`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from stillwarm.testing import RedisServer
from terminals import CTRL_C, CTRL_D, Terminal

COMMAND = [sys.executable, "-m", "stillwarm.cli", "demo", "dashboard", "--interactive", "--fast"]
PROMPT, WAY = "[1/2/3/4/q] > ", "[t/p/k/w/b] > "
Open = Callable[..., Terminal]


def environment(**changes: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "PYTHONUTF8", "COLUMNS")}
    return {**plain, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", **changes}


@pytest.fixture
def terminal() -> Iterator[Open]:
    with ExitStack() as stack:

        def opened(*arguments: str, **changes: str) -> Terminal:
            made = stack.enter_context(Terminal([*COMMAND, *arguments], environment(**changes)))
            made.see(PROMPT)
            return made

        yield opened


def chosen(terminal: Terminal, *keys: str) -> str:
    """What is shown for an item, up to the next question of the menu; without colours, each row as one line."""
    for key in keys[:-1]:
        terminal.line(key)
        terminal.see(WAY)
    terminal.line(keys[-1])
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal.see(PROMPT).decode("ascii"))
    assert "NOT AS PROMISED" not in text
    return " ".join(text.split())


def quits(terminal: Terminal, code: int = 0) -> None:
    terminal.line("q")
    assert terminal.end() == code
    assert b"Traceback" not in terminal.shown


def test_demo_menu_in_memory_does_what_it_says(terminal: Open) -> None:
    menu = terminal(COLUMNS="160")
    assert b"cached in memory" in menu.shown
    assert b"above" not in menu.shown
    shown = chosen(menu, "1")
    assert re.search(r"MISS: \d+ ms, 7 search queries .*HIT: .* 0 search queries, \d+ times as fast", shown)
    assert "second process" not in shown
    shown = chosen(menu, "3")
    assert "hits 50, misses 1, errors 0, total_requests 51, hit_rate 98.04, is_available True" in shown
    assert "state HEALTHY; 7 search queries so far" in shown
    quits(menu)


@pytest.mark.parametrize(
    ("key", "told", "anew"),
    [
        ("t", "POST /api/cache/invalidate/search: 200", {"/api/search?q=teapot", "/api/search?q=mug"}),
        ("p", "POST /api/cache/invalidate-pattern {'pattern': 'cache:search:*teapot*'}: 200", {"/api/search?q=teapot"}),
        ("k", "POST /api/cache/invalidate-key {'key': 'cache:product:product:7'}: 200", {"/api/products/7"}),
        ("w", "POST /api/orders: 201", {"/api/dashboard"}),
    ],
)
def test_demo_menu_invalidates(terminal: Open, key: str, told: str, anew: set[str]) -> None:
    menu = terminal(COLUMNS="160")
    shown = chosen(menu, "2", key)
    assert told in shown
    after = dict(re.findall(r"(/api/\S+): HIT -> (HIT|MISS)", shown))
    assert len(after) == 4
    assert {page for page, label in after.items() if label == "MISS"} == anew
    quits(menu)


def test_demo_menu_goes_back_and_takes_capitals_and_blanks(terminal: Open) -> None:
    menu = terminal()
    assert "Invalidation" not in chosen(menu, "2", "b")
    assert "Statistics" in chosen(menu, " 3 ")
    menu.line("Q")
    assert menu.end() == 0


@pytest.mark.parametrize("keys", ["5", "help", "\x1b[A", "\u65e5\u672c", "1" * 500, "-1"])
def test_demo_menu_wrong_input_gets_a_hint(terminal: Open, keys: str) -> None:
    menu = terminal()
    menu.line(keys)
    assert b"\\n" not in menu.see("is none of them.")
    menu.see("Accepted: 1, 2, 3, 4, q, and Enter.")
    menu.see(PROMPT)
    menu.line("")
    menu.see("Accepted: 1, 2, 3, 4, q, and Enter.")
    menu.see(PROMPT)
    quits(menu)


@pytest.mark.parametrize("before", [[], ["2"]], ids=["menu", "inner"])
def test_demo_menu_ctrl_d_ends_it_with_0(terminal: Open, before: list[str]) -> None:
    menu = terminal()
    for key in before:
        menu.line(key)
        menu.see(WAY)
        menu.press(CTRL_D)  # back
        menu.see(PROMPT)
    menu.press(CTRL_D)
    assert menu.end() == 0
    assert b"Traceback" not in menu.shown


@pytest.mark.parametrize("during", ["", "2", "4"], ids=["question", "inner", "work"])
def test_demo_menu_ctrl_c_ends_it_with_130(terminal: Open, during: str) -> None:
    menu = terminal()
    if during:
        menu.line(during)
        menu.see(WAY if during == "2" else "until the ttl is over")
    menu.press(CTRL_C)
    assert menu.end() == 130
    assert menu.rest.endswith(b"stillwarm: interrupted\r\n")
    assert b"Traceback" not in menu.shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_demo_menu_works_on_any_terminal(terminal: Open, encoding: str) -> None:
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    menu = terminal(**plain, TERM="dumb")
    menu.press(b"\x81\xff\xe2\x82\r")  # in no encoding of these
    menu.see("is none of them.")
    menu.see(PROMPT)
    assert "Miss against hit" in chosen(menu, "1")
    quits(menu)
    assert menu.shown.replace(b"\x81\xff\xe2\x82", b"").isascii()  # the terminal's own echo aside
    assert b"\x1b" not in menu.shown


@pytest.mark.parametrize(("changes", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_demo_menu_has_colours_where_they_are_wanted(terminal: Open, changes: dict[str, str], coloured: bool) -> None:
    menu = terminal(**changes)
    menu.line("1")
    menu.see(PROMPT)
    quits(menu)
    assert (b"\x1b[32m" in menu.shown) is coloured


def test_demo_menu_from_a_pipe_has_no_colours_and_ends_with_its_input() -> None:
    done = subprocess.run(COMMAND, input=b"1\n2\nt\n", capture_output=True, env=environment(), timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
    assert b"Miss against hit" in done.stdout
    assert b"Invalidation by type" in done.stdout


@pytest.mark.servers
def test_demo_menu_whole_workflow_with_a_redis_of_its_own(terminal: Open) -> None:
    menu = terminal("--redis", COLUMNS="160")
    assert b"cached in memory above Redis" in menu.shown
    assert "HIT in a second process" in chosen(menu, "1")
    shown = chosen(menu, "4")
    titles = ["Miss against hit", "An order is written", "Two levels, two processes", "The search server is killed"]
    for title in [*titles, "The search server is back", "Redis is killed", "Redis is back", "Statistics"]:
        assert title in shown, title
    assert shown.count(" ok ") == 8
    quits(menu)


def test_demo_menu_on_a_redis_by_its_url(terminal: Open, warm_redis: RedisServer) -> None:
    menu = terminal("--url", warm_redis.new_database(), COLUMNS="160")
    assert "from Redis" in chosen(menu, "1")
    shown = chosen(menu, "4")
    assert "Two levels, two processes" in shown
    assert "Redis is killed" not in shown  # it is not ours
    quits(menu)


def test_demo_menu_says_when_something_is_not_as_promised(terminal: Open) -> None:
    """The control: with the cache switched off nothing is a hit."""
    menu = terminal(STILLWARM_DISABLED="1")
    menu.line("1")
    menu.see("NOT AS PROMISED: Miss against hit")
    menu.see(PROMPT)
    quits(menu, 1)
