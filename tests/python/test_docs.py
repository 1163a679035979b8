"""The pages in python/docs say nothing that is not so: their code runs, and settings, tests, texts and files exist.

Thread rule: one thread; each block of code runs in this process.
Refuses to know: how the pages become a site (.ci/docs, which also checks every link and the reference).
"""

from __future__ import annotations

import re

import pytest

from pages import DOCS, PAGES, README, ROOT, Page, parameters, run_program, run_suite
from stillwarm._cache import _ARGUMENTS
from stillwarm._readings import FIGURES, PREFIX
from stillwarm._types import OPTIONS, TABLE_ONLY, TYPE_OPTIONS

BY_NAME = {page.name: page for page in PAGES}
SITE = (ROOT / ".ci" / "mkdocs.yml").read_text("utf-8")
IDEAS = re.findall(r"^ {6}- .*: (.+\.md)$", SITE.split("- Ideas:")[1].split("- Guides:")[0], re.MULTILINE)
MIGRATIONS = [name for name in BY_NAME if name.startswith("from-")]


@pytest.mark.parametrize(("page", "program"), parameters(PAGES, suites=False))
def test_docs_program_runs(page: Page, program: str, request: pytest.FixtureRequest) -> None:
    run_program(page, program, request)


@pytest.mark.parametrize(("page", "suite"), parameters(PAGES, suites=True))
@pytest.mark.parametrize("arguments", [[], ["--stillwarm-off"]], ids=["on", "off"])
def test_docs_suite_passes(page: Page, suite: str, arguments: list[str], pytester: pytest.Pytester) -> None:
    run_suite(suite, arguments, pytester)


def test_docs_settings_are_all_there_are() -> None:
    settings = BY_NAME["settings.md"]
    assert settings.table_after("Of a function (`@cache.cached") == TYPE_OPTIONS
    assert settings.table_after("Of a function only:") == OPTIONS - TYPE_OPTIONS
    assert settings.table_after("Of a type only") == TABLE_ONLY
    assert settings.table_after("Of the cache only:") == _ARGUMENTS


def test_docs_every_page_is_in_the_navigation_once() -> None:
    listed = re.findall(r"- (?:.*: )?(\S+\.md)$", SITE.split("\nnav:")[1], re.MULTILINE)
    assert sorted(listed) == sorted(BY_NAME)


def test_docs_there_is_a_page_for_each_idea() -> None:
    ideas = {"freshness", "invalidation", "stampede", "tiers", "keys", "http", "retry", "idempotency", "compression"}
    assert {f"{name}.md" for name in ideas | {"security", "testing"}} == set(IDEAS)


@pytest.mark.parametrize("name", IDEAS)
def test_docs_idea_has_a_picture_an_example_and_what_can_go_wrong(name: str) -> None:
    page = BY_NAME[name]
    pictures = re.findall(r"!\[([^\]]+)\]\(assets/([\w-]+\.svg)\)", page.text)
    assert pictures
    assert page.blocks("python")
    assert len(re.findall(r"^\| .+ \| .+ \| .+ \|$", page.section("What can go wrong"), re.MULTILINE)) >= 4
    for alternative, picture in pictures:
        drawn = (DOCS / "assets" / picture).read_text("utf-8")
        assert len(alternative) > 20, "the picture in words, for those who do not see it"
        assert re.search(r'<svg [^>]*role="img" aria-labelledby="t d"', drawn)
        assert re.search(r'<title id="t">.+</title>\s*<desc id="d">.+</desc>', drawn, re.DOTALL)
        assert "prefers-color-scheme: dark" in drawn
        assert not re.search(r"<script|<image|https?://(?!www\.w3\.org/2000/svg)", drawn)


@pytest.mark.parametrize("name", MIGRATIONS)
def test_docs_migration_has_both_sides_and_what_differs(name: str) -> None:
    page = BY_NAME[name]
    side = '<div class="sides" markdown>\n\n```py\n# before\n.*?```\n\n```python\n# after\n'
    sides = re.findall(side, page.text, re.DOTALL)
    assert len(sides) == len(page.blocks("python")) == len(page.blocks("py")) >= 1
    assert page.section("Names").count("\n| ") >= 6
    assert page.section("What differs").count("\n- ") >= 4


def test_docs_a_migration_for_each_of_the_five() -> None:
    there = {"aiocache", "cachetools", "fastapi-cache", "flask-caching", "lru-cache"}
    assert {f"from-{name}.md" for name in there} == set(MIGRATIONS)


def test_docs_name_tests_that_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.text)}
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "python").rglob("test_*.py"))
    assert named
    assert named - set(re.findall(r"^(?:async )?def (test_\w+)", sources, re.MULTILINE)) == set()


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_docs_links_lead_somewhere(page: Page) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.text):
        if "://" in target:
            continue
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, f"{target}#{anchor}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _quoted() -> list[str]:
    """The texts that the page on troubles quotes as the code prints them; `...` stands for what differs."""
    section = BY_NAME["troubleshooting.md"].section("By what it prints")
    found = re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)
    return [text.replace("\\|", "|") for text in found]


@pytest.mark.parametrize("text", _quoted())
def test_docs_message_stands_in_the_source(text: str) -> None:
    parts = [part for part in text.split("...") if part.strip()]
    assert sum(map(len, parts)) >= 10, "long enough to be found by"
    pattern = re.compile(".{1,80}?".join(re.escape(part.strip(" ")) for part in parts))
    assert any(pattern.search(source) for source in _SOURCES), text


def test_docs_quote_messages_of_every_kind() -> None:
    assert len(_quoted()) >= 30
    control = "this is printed by nobody at all"
    assert not any(control in source for source in _SOURCES)


def test_docs_metrics_are_those_that_there_are() -> None:
    named = {name for page in PAGES for name in re.findall(r"`(stillwarm_[a-z_]+)", page.text)}
    known = {f"{PREFIX}{name}" for name in FIGURES}
    assert len(named) >= 8
    assert {name.removesuffix("_total") for name in named} - known == set()


def _sources() -> list[str]:
    """Each source of the package with its texts as they are printed: pieces joined, fields as they stand."""
    joined = []
    for folder, pattern in ((ROOT / "python" / "stillwarm", "*.py"), (ROOT / "cpp", "*.[ch]pp")):
        for path in sorted(folder.rglob(pattern)):
            text = re.sub(r'"\s*\n\s*f?"', "", path.read_text("utf-8"))
            joined.append(text.replace('\\"', '"'))
    return joined


_SOURCES = _sources()
