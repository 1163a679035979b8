"""The `stillwarm` command as a user starts it: a process of its own, its two streams, its exit code, its signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

import stillwarm
from stillwarm.demo.discovery.story import TIMED
from stillwarm.testing import PostgresServer

COMMAND = [sys.executable, "-m", "stillwarm.cli"]

# The real command with a demo that needs no time; what its steps hold comes before this.
FAKE = """
import stillwarm.demo.dashboard as dashboard
from stillwarm.demo.dashboard import Step
class Fake:
    def __init__(self, fast, port):
        self.server = self
        self.url = "http://127.0.0.1:1"
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def story(self, progress=None):
        yield from STEPS
dashboard.Dashboard = Fake
from stillwarm.cli import main
main()
"""
GOOD = "STEPS = [Step('A title', ['saw 1', 'saw 2'], {'n': 1}, {'a fact': True})]\n"
BROKEN = "STEPS = [Step('A title', ['saw 1'], {'n': 1}, {'a fact': True, 'another': False})]\n"
HALF_MADE = """
class Half:
    def __init__(self): raise KeyboardInterrupt
    def __del__(self): self.never_set
class Steps:
    def __iter__(self): yield Half()
STEPS = Steps()
"""
FOREIGN = "STEPS = [Step('Gr\\u00fc\\u00dfe \\u2713', ['\\u65e5\\u672c'], {}, {'a fact': True})]\n"


def fake(steps: str, *arguments: str) -> list[str]:
    code = "import sys\nfrom stillwarm.demo.dashboard import Step\n" + steps + FAKE
    return [sys.executable, "-c", code, *arguments]


def environment(**changes: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "PYTHONUTF8", "COLUMNS")}
    return {**plain, "PYTHONPATH": os.pathsep.join(sys.path), **changes}


def run(command: list[str], **changes: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, env=environment(**changes), timeout=120, check=False)


def start(command: list[str]) -> subprocess.Popen[str]:
    # In a process group of its own, so that a signal to it reaches nobody else.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )


def test_cli_version_is_the_packages() -> None:
    done = run([*COMMAND, "--version"])
    assert (done.returncode, done.stdout.decode()) == (0, f"stillwarm {stillwarm.__version__}\n")


def test_cli_without_arguments_shows_what_there_is() -> None:
    done = run(COMMAND)
    assert "demo" in done.stdout.decode() + done.stderr.decode()
    assert run([*COMMAND, "--help"]).returncode == 0


def test_cli_help_of_demo_names_every_demo() -> None:
    from stillwarm.demo import DEMOS

    text = run([*COMMAND, "demo", "--help"], COLUMNS="200").stdout.decode()
    assert all(name in text for name in DEMOS)
    assert all(option in text for option in ("--serve", "--port", "--json", "--fast", "--url"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["demo", "nope"], "there is no demo named 'nope'; accepted: dashboard"),
        (["demo", "--port", "70000"], "70000"),
        (["demo", "--token", "short"], "16 characters or more"),
        (["demo", "--prot", "1"], "--prot"),
        (["demo", "discovery", "--url", "mysql://me:secret@host/db"], "mysql://me:***@host/db"),
        (["dmeo"], "dmeo"),
    ],
)
def test_cli_wrong_arguments_are_named_and_exit_with_2(arguments: list[str], named: str) -> None:
    done = run([*COMMAND, *arguments])
    assert done.returncode == 2
    assert named in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_cli_wrong_name_in_any_script_and_encoding(encoding: str) -> None:
    done = run([*COMMAND, "demo", "\u65e5\u672c"], LC_ALL="C.UTF-8", PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["typer", "rich", "flask"])
def test_cli_missing_package_is_named_with_the_way_to_get_it(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from stillwarm.cli import main; main()"
    done = run([sys.executable, "-c", code, "demo"])
    assert done.returncode == 1
    assert package in done.stderr.decode()
    assert "pip install 'stillwarm[demo]'" in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_cli_missing_fastapi_is_named_and_the_other_demo_needs_none() -> None:
    code = "import sys; sys.modules['fastapi'] = None; "
    done = run([sys.executable, "-c", code + "from stillwarm.cli import main; main()", "demo", "discovery"])
    assert done.returncode == 1
    assert b"'fastapi'" in done.stderr
    assert b"Traceback" not in done.stderr
    assert run([sys.executable, "-c", code + "import stillwarm.demo.dashboard"]).returncode == 0
    assert (
        run(
            [sys.executable, "-c", "import sys; sys.modules['flask'] = None; import stillwarm.demo.discovery"]
        ).returncode
        == 0
    )


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_cli_grafana_prints_the_dashboard(encoding: str) -> None:
    # Without prometheus_client: whoever imports the dashboard need not run the app.
    code = "import sys; sys.modules['prometheus_client'] = None; from stillwarm.cli import main; main()"
    done = run([sys.executable, "-c", code, "grafana"], PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["title"] == "stillwarm"


def test_cli_is_not_needed_to_import_stillwarm() -> None:
    code = "import sys, stillwarm; print(sorted({'typer', 'rich', 'flask', 'click'} & set(sys.modules)))"
    assert run([sys.executable, "-c", code]).stdout == b"[]\n"


def test_cli_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run([*COMMAND, "demo", "--port", str(port)])
    assert done.returncode == 1
    assert f"port={port}" in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_cli_demo_shows_each_step_and_exits_with_0() -> None:
    done = run(fake(GOOD, "demo"))
    text = done.stdout.decode()
    assert done.returncode == 0
    assert "A title" in text
    assert "saw 2" in text
    assert "1 promises held, 0 broken" in text
    assert done.stderr == b""


def test_cli_broken_promise_is_named_and_exits_with_1() -> None:
    done = run(fake(BROKEN, "demo"))
    assert done.returncode == 1
    assert "FAILED" in done.stdout.decode()
    assert "NOT AS PROMISED: A title: another" in done.stdout.decode()


def test_cli_broken_promise_shows_in_json_too() -> None:
    done = run(fake(BROKEN, "demo", "--json"))
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert document["steps"][0]["facts"] == {"a fact": True, "another": False}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_cli_output_fits_every_encoding(encoding: str) -> None:
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    done = run(fake(FOREIGN, "demo"), **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode(encoding)
    plain = run(fake(GOOD, "demo"), **locale)
    assert plain.stdout.isascii()


@pytest.mark.parametrize(
    ("changes", "coloured"), [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)]
)
def test_cli_colours_are_for_terminals(changes: dict[str, str], coloured: bool) -> None:
    assert b"\x1b" not in run(fake(GOOD, "demo"), **changes).stdout
    leader, follower = pty.openpty()
    process = subprocess.Popen(fake(GOOD, "demo"), stdout=follower, stderr=follower, env=environment(**changes))
    os.close(follower)
    seen = b""
    try:
        while chunk := os.read(leader, 4096):
            seen += chunk
    except OSError:
        pass  # a terminal whose other side is closed says so
    os.close(leader)
    assert process.wait(30) == 0
    assert (b"\x1b[32m" in seen) is coloured


def test_cli_demo_discovery_with_a_database_holds_its_promises_again_and_again(warm_postgres: PostgresServer) -> None:
    url = warm_postgres.new_database()
    for _ in range(2):  # the second finds what the first has left
        done = run([*COMMAND, "demo", "discovery", "--fast", "--json", "--url", url])
        document = json.loads(done.stdout)
        untimed = [
            f"{step['title']}: {fact}"
            for step in document["steps"]
            for fact, holds in step["facts"].items()
            if not holds and fact not in TIMED
        ]
        assert untimed == []
        assert b"Traceback" not in done.stderr
    verified = run([*COMMAND, "db", "verify", "--url", url])
    assert verified.returncode == 0
    assert b"product_discovery_cache" in verified.stdout


@pytest.mark.parametrize(("name", "path"), [("dashboard", "/api/dashboard"), ("discovery", "/api/v1/health")])
def test_cli_demo_serves_on_after_the_story_until_ctrl_c(name: str, path: str) -> None:
    process = start([*COMMAND, "demo", name, "--fast", "--serve", "--json"])
    try:
        assert process.stderr is not None
        assert process.stdout is not None
        url = ""
        while not url:
            line = process.stderr.readline()
            assert line, process.stdout.read()
            url = line.partition("The app is up: ")[2].partition("/ ")[0]
        connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        assert name == "discovery" or answer.headers["X-Cache"] in ("HIT", "MISS")
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "Traceback" not in err
    document = json.loads(out)
    assert document["ok"] is True
    assert document["url"] == url
    assert [step for step in document["steps"] if not step["ok"]] == []


def test_cli_ctrl_c_during_the_story_ends_it_with_130() -> None:
    process = start([*COMMAND, "demo"])
    try:
        assert process.stdout is not None
        while "First request" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert err == "stillwarm: interrupted\n"


def test_cli_ctrl_c_is_silent_about_what_was_half_made() -> None:
    done = run(fake(HALF_MADE, "demo"))
    assert (done.returncode, done.stderr) == (130, b"stillwarm: interrupted\n")
