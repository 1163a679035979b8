"""One idempotency key, 64 threads of each of two processes, and the process that executes is killed on the way.

Each thread sends the same request with the same key, most as user A and some as B, whose key is another one by that.
Afterwards somebody asks again as each user, and the effects in the database are counted:

    with transaction=   exactly one effect, and everybody who was answered has the same answer
    without             at most one; where its end is not known, 409 until the key expires, and then a new one
    naive               looks whether it was done, does it, notes it: the control

Thread rule: one thread; the processes are key_worker's.
Refuses to know: limits (trust.py), pytest.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg

from outages import eventually
from reliability import children
from reliability.key_worker import POINTS, TABLES, Deadly, app_of, ask, cache_of
from stillwarm._servers import PostgresServer

PROCESSES = 2
THREADS = 64
LONGEST = 0.03  # s until the timer kills
TURNS = 10  # more that it may have before it has killed once


class Outcome:
    """What was seen in all rounds of one mode."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.rounds = 0
        self.answers: Counter[str] = Counter()  # "executed", "replayed", or a status with its code
        self.again: Counter[str] = Counter()  # the same of who asks when the round is over
        self.killed: Counter[str] = Counter()  # by point
        self.effects: Counter[int] = Counter()  # how many a user's key has had before it expired
        self.wrong: list[str] = []
        self.most = 0  # effects of one user's key
        self.strangers = 0  # answers that belong to the other user

    def __str__(self) -> str:
        def told(counter: Counter[Any]) -> str:
            return ", ".join(f"{count:,} {name}" for name, count in sorted(counter.items(), key=str)) or "none"

        effects = ", ".join(f"{count} keys with {number}" for number, count in sorted(self.effects.items()))
        return (
            f"{self.rounds} rounds; answers: {told(self.answers)}; killed at: {told(self.killed)}; asked again: "
            f"{told(self.again)}; effects: {effects}; {self.strangers} answers of another user, {len(self.wrong)} wrong"
        )


class Program:
    """A process that forks one for each round."""

    def __init__(self) -> None:
        paths = os.pathsep.join([str(children.PACKAGE), str(children.TESTS)])
        self._program = subprocess.Popen(
            [sys.executable, "-m", "reliability.key_worker"],
            env=dict(os.environ, PYTHONPATH=paths, PYTHONFAULTHANDLER="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, text: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(text + "\n")
        self._program.stdin.flush()

    def hear(self) -> Any:
        assert self._program.stdout is not None
        line = self._program.stdout.readline().strip()
        assert line, "the program ended"
        return line if line == "ready" else json.loads(line)

    def close(self) -> None:
        for pipe in (self._program.stdin, self._program.stdout):
            assert pipe is not None
            pipe.close()
        self._program.wait()


def run(server: PostgresServer, mode: str, rounds: int, seed: int, threads: int = THREADS) -> Outcome:
    """`threads` of each process. Each point where it kills has its turn, and each seventh round kills nobody."""
    url = server.new_database()
    outcome, rng = Outcome(mode), random.Random(seed)
    users = ["B" if n % 8 == 7 else "A" for n in range(threads)]
    programs = [Program() for _ in range(PROCESSES)]
    with cache_of(url) as cache, tempfile.TemporaryDirectory() as folder:
        cache.migrate()
        with psycopg.connect(url, autocommit=True) as database:
            for text in TABLES:
                database.execute(text)  # type: ignore[call-overload]
            app = app_of(url, cache, mode, Deadly())
            points = ("", *POINTS)
            try:
                number = 0
                while number < rounds:
                    point = points[number % len(points)] if mode != "naive" else ""
                    job = {"url": url, "mode": mode, "key": str(uuid.UUID(int=rng.getrandbits(128))), "users": users}
                    token = str(Path(folder, str(outcome.rounds)))
                    job |= {"point": point, "delay": rng.random() * LONGEST, "token": token}
                    answers = _race(programs, job, outcome)
                    _judge(app, database, job["key"], answers, outcome)
                    outcome.rounds += 1
                    # The timer may come when all is over: then it has another turn.
                    if point != "timer" or outcome.killed[point] or outcome.rounds >= 2 * rounds + TURNS:
                        number += 1
            finally:
                for program in programs:
                    program.close()
    return outcome


def _race(programs: list[Program], job: dict[str, Any], outcome: Outcome) -> list[tuple[str, str, bool]]:
    for program in programs:
        program.say(json.dumps(job))
    for program in programs:
        assert program.hear() == "ready"
    for program in programs:
        program.say("go")
    answers: list[tuple[str, str, bool]] = []
    for program in programs:
        while isinstance(said := program.hear(), list):
            answers += said
        if said["ended"] < 0:
            outcome.killed[job["point"]] += 1
        elif said["ended"] != 0:
            outcome.wrong.append(f"{job['point']}: the process ended with {said['ended']}")
    return answers


def _judge(
    app: Any, database: psycopg.Connection[Any], key: str, answers: list[tuple[str, str, bool]], outcome: Outcome
) -> None:
    """What everybody was told, and what there is."""

    def effects(user: str) -> list[str]:
        rows = database.execute('SELECT body FROM effects WHERE key = %s AND "user" = %s', [key, user]).fetchall()
        return [row[0] for row in rows]

    def expect(ok: bool, what: str) -> None:
        if not ok:
            outcome.wrong.append(f"round {outcome.rounds}, {what}")

    unknown: dict[str, list[str]] = {}  # and their effects so far
    for user in ("A", "B"):
        told = {body for who, body, _ in answers if who == user}
        last = _asked_again(app, database, key, user, outcome)
        there = effects(user)
        outcome.effects[len(there)] += 1
        outcome.most = max(outcome.most, len(there))
        bodies = {body for body in told | {last} if not body[:3].isdigit()}
        strange = {body for body in bodies if not body.startswith(f"{user} ")}
        outcome.strangers += len(strange)
        expect(bodies <= set(there) and len(bodies) <= 1, f"{user}: {bodies} answered, {there} done")
        if outcome.mode == "with" or not last.startswith("409"):
            expect(len(there) == 1, f"{user}: {len(there)} effects")
        else:
            expect(len(there) <= 1, f"{user}: {len(there)} effects")
            unknown[user] = there
    if unknown:  # till they expire
        database.execute("UPDATE stillwarm.idempotency SET expires_at = clock_timestamp() - interval '1 s'")
    for user, there in unknown.items():
        _, anew, replayed = ask(app, key, user)
        expect(anew in effects(user) and anew not in there and not replayed, f"{user}: {anew} after its expiry")
    for _, body, replayed in answers:
        what = body if body[:3].isdigit() else "replayed" if replayed else "executed"
        outcome.answers[what] += 1
        expect(what in ("replayed", "executed", "409 idempotency-running"), f"answer {body}")
    for user in ("A", "B"):
        executed = sum(not replayed and not body[:3].isdigit() for who, body, replayed in answers if who == user)
        expect(executed <= 1, f"{user}: {executed} were told that they were the first")


def _asked_again(app: Any, database: psycopg.Connection[Any], key: str, user: str, outcome: Outcome) -> str:
    """The final answer to a repetition."""
    got: list[tuple[str, str, bool]] = [ask(app, key, user)]

    def final() -> bool:
        got[0] = ask(app, key, user)
        return got[0][1] != "409 idempotency-running"

    if got[0][1] == "409 idempotency-running":
        if outcome.mode == "without":  # as if its lease was over
            database.execute("UPDATE stillwarm.idempotency SET lease_until = clock_timestamp() - interval '1 s'")
        eventually(final, what=f"a final answer to {key}")
    _, body, replayed = got[0]
    outcome.again[body if body[:3].isdigit() else "replayed" if replayed else "executed"] += 1
    if body[:3].isdigit() and not (outcome.mode == "without" and body == "409 idempotency-outcome-unknown"):
        outcome.wrong.append(f"round {outcome.rounds}, asked again: {body}")
    return body


__all__ = ["Outcome", "run"]
