"""The dashboard demo's story on Redis: its own, somebody else's, one that is not there; and its second process.

Thread rule: one client.
Refuses to know: what the app does with Redis in each case (`test_demo_dashboard_redis`, `test_demo_dashboard_down`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stillwarm import ConfigError
from stillwarm._servers import ServerMissing, free_port
from stillwarm.demo.dashboard import Dashboard, Step
from stillwarm.testing import RedisServer
from tiers import eventually

COMMAND = [sys.executable, "-m", "stillwarm.cli", "demo"]
TIERED = ["Two levels, two processes", "Redis is killed", "Redis is back"]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **changes}


def broken(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.title, fact) for step in steps for fact, held in step.facts.items() if not held]


@pytest.mark.servers
def test_demo_story_on_a_redis_of_its_own_keeps_every_promise() -> None:
    with Dashboard(fast=True, redis=True) as demo:
        assert demo.redis is not None
        assert f"Its Redis: {demo.redis.url}" in demo.invitation()
        steps = list(demo.story())
        folder = demo.redis.folder
    assert broken(steps) == []
    assert [step.title for step in steps if step.title in TIERED] == TIERED
    assert len(steps) == 16
    assert all(step.facts and step.seen and step.figures for step in steps)
    assert not folder.exists()


def test_demo_story_on_a_redis_by_its_url_runs_again_and_again(warm_redis: RedisServer) -> None:
    url = warm_redis.new_database()
    port = free_port()  # the same one twice, so that the second finds the pages of the first
    for _ in range(2):
        with Dashboard(fast=True, url=url, port=port) as demo:
            steps = list(demo.story())
        assert broken(steps) == []
        assert len(steps) == 14  # it is not killed
    assert warm_redis.running


def test_demo_story_without_the_redis_of_its_url_stops_nothing() -> None:
    with Dashboard(fast=True, url=f"redis://127.0.0.1:{free_port()}/0") as demo:
        steps = list(demo.story())
    assert len(steps) == 14
    (levels,) = [step for step in steps if step.title in TIERED]
    assert not levels.facts["the second process loads nothing"]  # there is nothing to share it
    assert [title for title, _ in broken(steps) if title in ("First request", "The same again")] == []


def test_demo_second_process_ends_with_the_first(warm_redis: RedisServer) -> None:
    code = (
        "import sys, time\nfrom stillwarm.demo.dashboard import Dashboard\n"
        "demo = Dashboard(fast=True, url=sys.argv[1])\nprint(demo.second()._program.pid, flush=True)\ntime.sleep(60)"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, warm_redis.new_database()], stdout=subprocess.PIPE, env=environment()
    )
    try:
        assert first.stdout is not None
        second = int(first.stdout.readline())
        assert Path(f"/proc/{second}").exists()
        assert b"redis://" not in Path(f"/proc/{second}/cmdline").read_bytes()  # nor passwords
        first.send_signal(signal.SIGKILL)
    finally:
        first.kill()
        first.communicate()
    eventually(lambda: not alive(second), "the second process stays")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # whoever adopted it may be slow to notice


def test_demo_second_process_that_does_not_start_is_an_error() -> None:
    with Dashboard(fast=True) as demo:
        demo.url = "redis://127.0.0.1:1/no-number"
        with pytest.raises(OSError, match="did not start"):
            demo.second()


def test_demo_redis_of_its_own_and_a_url_are_refused() -> None:
    with pytest.raises(ConfigError, match="redis=True"):
        Dashboard(fast=True, redis=True, url="redis://127.0.0.1/0")


def test_demo_wrong_url_is_refused_without_its_password() -> None:
    with pytest.raises(ConfigError, match=r"url='redis://:\*\*\*@") as caught:
        Dashboard(fast=True, url="redis://:secret@127.0.0.1:1/no-number")
    assert "secret" not in str(caught.value)


def test_demo_without_redis_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SERVER", "/nowhere")
    with pytest.raises(ServerMissing, match="install the Debian package redis-server"):
        Dashboard(fast=True, redis=True)
    done = subprocess.run([*COMMAND, "dashboard", "--redis"], capture_output=True, env=environment(), timeout=60)
    assert done.returncode == 1
    assert b"install the Debian package redis-server" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["voc", "--redis"], "not with the demo 'voc'; accepted: dashboard"),
        (["discovery", "--interactive"], "not with the demo 'discovery'; accepted: dashboard"),
        (["dashboard", "--redis", "--url", "redis://127.0.0.1/0"], "not with --url"),
        (["dashboard", "--interactive", "--json"], "not with --serve or --json"),
        (["dashboard", "--interactive", "--serve"], "not with --serve or --json"),
        (["dashboard", "--url", "redis://:secret@127.0.0.1:1/x"], "redis://:***@127.0.0.1:1/x"),
    ],
)
def test_demo_redis_wrong_arguments_are_named_and_exit_with_2(arguments: list[str], named: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, env=environment(COLUMNS="300"), timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")
    assert named in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"secret" not in done.stderr
