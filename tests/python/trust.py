"""The long reliability run, which `make trust` calls.

    python tests/python/trust.py [--minutes N] [--seed S] [--part NAME]

A whole run takes less than 30 minutes on two cores: the parts whose limits are times, 12 minutes of soak among them, go
one after the other, and those that only count go beside them in a second process.

Thread rule: one part after the other; each starts what it needs, most in processes of their own.
Refuses to know: pytest. Prints one report, with the seed that repeats it, writes it to build/trust/report.md, and exits
with 1 if a promise was broken or if a control (a cache with a known mistake) was not caught.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from reliability import children, commit_cuts, fuzz, history, key_writes, soak, voc_writes
from reliability.leaks import WORKLOADS
from reliability.lines import Line, Part, Plan, told, written
from reliability.schedules import schedules
from reliability.subjects import LoadsTwice, NaiveSubject, Ours, ServesTooOld
from reliability.tier_lines import LONGEST_OVERRUN, LONGEST_RECOVERY, of_both, of_postgres, of_redis
from stillwarm._servers import PostgresServer

REPORT = Path(__file__).resolve().parents[2] / "build" / "trust" / "report.md"
COUNTS = REPORT.with_name("counts.json")
NICE = 10
READS = 30_600_000  # of the history check, over its three kinds
FORKS = 600
EXITS = ("loads", "followers", "refreshes", "many-caches", "tasks", "comparisons")
EXITS_EACH = 20
LONGEST_EXIT = 1.0  # s
LONGEST_INTERRUPT = 0.3  # s
LEAK = 1.0  # bytes per operation
LEAK_OPERATIONS = 1_000_000
SAVES = 50  # rounds of a hundred clients that save the same window
KEYS = 200  # rounds of 128 requests with one idempotency key, with and without transaction=
ENVELOPES, KEY_TEXTS, HEADERS = 2_000_000, 300_000, 100_000  # cases of the fuzzers
SOAK = 12.0  # minutes
SOAK_CONTROL = 15.0  # s
# s; `Cache.state` is about the last 10 s: whoever had more than 5 % of errors in them is DEGRADED until they are over.
LONGEST_STATE = 10.0 + LONGEST_RECOVERY
SOAK_FAULTS = 120


def history_part(plan: Plan) -> Iterator[Line]:
    ends = None if plan.minutes is None else time.monotonic() + plan.minutes * 60
    caught = history.run(history.naive, 300_000, seed=plan.seed)
    yield Line(bool(caught.impossible), "history: control that stores after an invalidation is caught", str(caught))
    for round_ in range(10**9):
        for name, make in history.SUBJECTS.items():
            outcome = history.run(make, READS // len(history.SUBJECTS), seed=plan.seed + round_)
            ok = not outcome.impossible and outcome.lost_fills > 0
            yield Line(ok, f"history: {name}, seed {plan.seed + round_}", str(outcome))
        if ends is None or time.monotonic() > ends:
            return


def schedules_part(plan: Plan) -> Iterator[Line]:
    for control in (NaiveSubject, LoadsTwice, ServesTooOld):
        yield Line(
            fails(lambda control=control: schedules(control, examples=300, seed=plan.seed)),  # type: ignore[misc]
            f"schedules: control {control.__name__} is caught",
            (control.__doc__ or "").splitlines()[0],
        )
    ends = None if plan.minutes is None else time.monotonic() + plan.minutes * 60
    for round_ in range(10**9):
        seed, examples, steps = plan.seed + round_, 2_000, 80
        ok = not fails(lambda: schedules(Ours, examples=examples, seed=seed, steps=steps), show=True)  # noqa: B023
        yield Line(ok, f"schedules: against the model, seed {seed}", f"{examples:,} schedules of up to {steps} steps")
        if ends is None or time.monotonic() > ends:
            return


def fails(run: Callable[[], None], show: bool = False) -> bool:
    try:
        run()
    except AssertionError as error:
        if show:
            print(error, *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return True
    return False


def forks_part(plan: Plan) -> Iterator[Line]:
    control = children.run("forks", 20, "naive", watchdog=120)
    caught = control.ok and "failed: 0" not in control.output
    yield Line(caught, "forks: control with a plain lock is caught", control.output.strip() + " of 20")
    ended = children.run("forks", FORKS, watchdog=900)
    yield Line(
        ended.ok and "failed: 0" in ended.output, f"forks: {FORKS} under load", told(ended, ended.output.strip())
    )


def exits_part(plan: Plan) -> Iterator[Line]:
    for how in EXITS:
        runs = [children.run("exits", how) for _ in range(EXITS_EACH)]
        good = [run for run in runs if run.ok and run.after_last_line < LONGEST_EXIT and not run.errors]
        bad = next((str(run) for run in runs if run not in good), "")
        longest = max(run.after_last_line for run in runs)
        figures = f"{len(good)} of {len(runs)} with exit code 0 within {LONGEST_EXIT:g} s, longest {longest:.2f} s{bad}"
        yield Line(len(good) == len(runs), f"exits: with {how} in flight", figures)


def interrupts_part(plan: Plan) -> Iterator[Line]:
    for who in ("leader", "follower"):
        ended = children.run("interrupts", who)
        took = [float(line.split()[1]) for line in ended.output.splitlines() if line.startswith("took")]
        ok = ended.ok and len(took) == 3 and max(took) < LONGEST_INTERRUPT
        yield Line(
            ok, f"Ctrl-C: {who}", told(ended, f"KeyboardInterrupt after at most {max(took, default=99) * 1e3:.1f} ms")
        )
    ended = children.run("interrupts", "everywhere", watchdog=600)
    yield Line(
        ended.ok, "Ctrl-C: at each line of the path, nobody is stuck", told(ended, ", ".join(ended.output.splitlines()))
    )


def hostile_part(plan: Plan) -> Iterator[Line]:
    parts = ("special_methods_raise", "special_methods_come_back", "values_come_back")
    for part in (*parts, "collector_in_every_operation", "comparisons_wait"):
        ended = children.run("reentry", part, watchdog=300)
        yield Line(ended.ok, f"hostile objects: {part.replace('_', ' ')}", told(ended, "no hang, no crash"))
    ended = children.run("nomemory", watchdog=300)
    yield Line(ended.ok, "memory: each allocation fails once", told(ended, ended.output.strip()))


def leaks_part(plan: Plan) -> Iterator[Line]:
    for name in WORKLOADS:
        ended = children.run("leaks", LEAK_OPERATIONS, name, watchdog=1_800)
        grown = float(ended.output.split()[1]) if ended.ok else float("inf")
        yield Line(grown < LEAK, f"leaks: {name}", told(ended, f"{grown:.3f} bytes per operation, limit {LEAK:g}"))


def fuzz_part(plan: Plan) -> Iterator[Line]:
    """Any bytes, and what must hold for them."""
    for what, run, naive, count in (
        ("the envelope", fuzz.envelopes, fuzz.NaiveEnvelope, ENVELOPES),
        ("the text of keys", fuzz.keys, fuzz.naive_key, KEY_TEXTS),
        ("header fields", fuzz.headers, fuzz.naive_front, HEADERS),
    ):
        caught: fuzz.Outcome = run(2_000, plan.seed, naive)  # type: ignore[operator]
        yield Line(bool(caught.wrong), f"fuzz: {what}, control {naive.__name__} is caught", str(caught))
        seen: fuzz.Outcome = run(count, plan.seed)  # type: ignore[operator]
        yield Line(not seen.wrong, f"fuzz: {what}, seed {plan.seed}", str(seen))


def writes_part(plan: Plan) -> Iterator[Line]:
    """What is written once, however often it is asked for, and whoever dies on the way."""
    with PostgresServer() as server:
        naive = voc_writes.run(server, 3, plan.seed, "naive")
        yield Line(bool(naive.rows_wrong), "writes: control that looks before it inserts is caught", str(naive))
        yield Line(min(naive.older()) > 0, "writes: control that invalidates nothing is caught", "the same rounds")
        saved = voc_writes.run(server, SAVES, plan.seed)
        ok = not saved.rows_wrong and saved.older() == (0, 0) and not saved.failed and saved.kills and saved.ended
        yield Line(bool(ok), f"writes: one window from 4 processes, seed {plan.seed}", str(saved))
        looks = key_writes.run(server, "naive", 5, plan.seed)
        yield Line(looks.most > 1 and looks.strangers > 0, "writes: control without a claim is caught", str(looks))
        for mode in ("with", "without"):
            keys = key_writes.run(server, mode, KEYS, plan.seed)
            ok = not keys.wrong and keys.strangers == 0 and set(keys.killed) == set(key_writes.POINTS)
            what = f"writes: one key from 2 processes, {mode} transaction=, seed {plan.seed}"
            yield Line(bool(ok), what, "; ".join([str(keys), *keys.wrong]))
        for adapter in commit_cuts.ADAPTERS:
            blind = commit_cuts.run(server, adapter, decorated=False)
            caught = [case.effects for case in blind.cases] == [2]
            yield Line(caught, f"writes: control that repeats a lost commit is caught, {adapter}", str(blind))
            cut = commit_cuts.run(server, adapter)
            what = f"writes: the connection cut at each byte of record and commit, {adapter}"
            yield Line(not cut.wrong, what, "; ".join([str(cut), *map(str, cut.wrong)]))


def soak_part(plan: Plan) -> Iterator[Line]:
    """Two workers, both tiers, and something breaks every few seconds. Figures of time are those of an idle machine."""
    control = soak.run(SOAK_CONTROL, plan.seed, naive=True, faults=False)
    yield Line(bool(control.verdict.wrong), "soak: control that tells nobody is caught", str(control.verdict))
    minutes = SOAK if plan.minutes is None else plan.minutes
    report = soak.run(minutes * 60, plan.seed)
    least = SOAK_FAULTS if minutes >= SOAK else int(soak.least_faults(minutes * 60))
    yield Line(len(report.faults) >= max(1, least), f"soak: faults, seed {plan.seed}", report.faults_told())
    bound = all(report.verdict.checked[rule] for rule in ("same", "other", "away"))
    yield Line(bound and not report.verdict.wrong, "soak: values", report.wrong_told())
    yield Line(not report.errors, "soak: exceptions", report.errors_told())
    yield Line(not report.long_waits(LONGEST_OVERRUN), "soak: waits", report.waits_told(LONGEST_OVERRUN))
    slow = report.slow_recoveries(LONGEST_RECOVERY)
    yield Line(bool(report.recoveries) and not slow, "soak: recovery", report.recovery_told(LONGEST_RECOVERY))
    late = report.late_states(LONGEST_STATE)
    yield Line(not late, "soak: the state goes back by itself", report.states_told(LONGEST_STATE))
    growing = report.growing()
    figures = report.grown_told() + (f"; growing: {', '.join(growing)}" if growing else "")
    yield Line(not growing, "soak: middle third of the run -> last third", figures)


# Their limits are times: one after the other.
TIMED: dict[str, Callable[[Plan], Iterator[Line]]] = {
    "exits": exits_part,
    "interrupts": interrupts_part,
    "redis": of_redis,
    "remote": of_postgres,
    "soak": soak_part,
}
# They count: in a second process beside those, at a lower priority.
COUNTED: dict[str, Callable[[Plan], Iterator[Line]]] = {
    "history": history_part,
    "schedules": schedules_part,
    "forks": forks_part,
    "hostile": hostile_part,
    "fuzz": fuzz_part,
    "tiers": of_both,
    "writes": writes_part,
    "leaks": leaks_part,
}


def run(names: Iterable[str], plan: Plan) -> Iterator[Part]:
    for name in names:
        begun = time.monotonic()
        lines: list[Line] = []
        for line in {**TIMED, **COUNTED}[name](plan):
            lines.append(line)
            print(f"{'ok    ' if line.ok else 'BROKEN'}  {line.what}: {line.figures}", flush=True)
        yield Part(name, time.monotonic() - begun, lines)


def beside(plan: Plan) -> subprocess.Popen[bytes]:
    """The parts that count, in a process of their own, which writes what they are to COUNTS."""
    COUNTS.parent.mkdir(parents=True, exist_ok=True)
    COUNTS.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--seed", str(plan.seed), "--counts"]
    return subprocess.Popen(command + ([] if plan.minutes is None else ["--minutes", str(plan.minutes)]))


def main() -> int:
    parser = argparse.ArgumentParser(description="The long reliability run.")
    parser.add_argument("--minutes", type=float, help="how long history, schedules and soak each go on")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="repeats a run's random choices")
    parts_of = {**TIMED, **COUNTED}
    parser.add_argument("--part", choices=parts_of, action="append", help="only this part; may be given several times")
    parser.add_argument("--counts", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    plan = Plan(given.seed, given.minutes)
    children.hear_ctrl_c()
    if given.counts:
        os.nice(NICE)
        COUNTS.write_text(json.dumps(list(run(COUNTED, plan))))
        return 0
    print(f"trust run, Python {sys.version.split()[0]}, --seed {plan.seed}", flush=True)
    begun = time.monotonic()
    other = None if given.part else beside(plan)
    parts: list[Part] = []
    try:
        for part in run(given.part or TIMED, plan):
            parts.append(part)
            written(REPORT, plan, parts, time.monotonic() - begun)
        if other is not None:
            ended = other.wait()
            if ended == 0:
                parts += [
                    Part(name, took, [Line(*line) for line in of]) for name, took, of in json.loads(COUNTS.read_text())
                ]
            else:
                parts.append(Part("counts", 0.0, [Line(False, "the parts that count", f"ended with {ended}")]))
    finally:
        if other is not None:
            other.kill()
    took = time.monotonic() - begun
    written(REPORT, plan, parts, took)
    lines = [line for part in parts for line in part.lines]
    broken = sum(not line.ok for line in lines)
    print(f"{len(lines)} checks, {broken} broken, {took:.0f} s; again with --seed {plan.seed}")
    print(f"written: {REPORT}")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
