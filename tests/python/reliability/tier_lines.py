"""The long run of the tiers: faults, exits, Ctrl-C, changes seen by other processes, stampedes; cancels and forks.

Thread rule: one measurement after the other. Figures of time are those of an idle machine.
Refuses to know: pytest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from outages import DEADLINE
from reliability import children, heard, redis_run, remote, stampedes
from reliability.lines import Line, Plan, told
from served import Served
from stillwarm._redis_server import RedisServer
from stillwarm._servers import PostgresServer
from stillwarm._tier import LEASE_AGE

FORKS = 600
EXITS_EACH = 20
LONGEST_EXIT = 1.0  # s
LONGEST_INTERRUPT = 0.3  # s
LONGEST_OVERRUN = 0.05  # s past the tier's deadline
LONGEST_RECOVERY = 2.0  # s from the server's return
CANCELS = 10_000
MAX_LAG = 1.0  # s
SEEN = {"postgres": 2_000, "redis": 10_000}  # changes that another process has to see
CUTS = 40
LOADERS = (0.2, 12.0)  # s


def of_postgres(plan: Plan) -> Iterator[Line]:
    """The PostgreSQL tier."""
    with PostgresServer() as server:
        yield from _of_any(plan, "remote", Served("postgres", server))


def of_redis(plan: Plan) -> Iterator[Line]:
    """The Redis tier."""
    with RedisServer() as server:
        yield from _of_any(plan, "redis", Served("redis", server))


def of_both(plan: Plan) -> Iterator[Line]:
    """What is counted on both and has no limit of time: wrong answers, lost counts, stuck forks, evicted marks."""
    for line in redis_run.lines(plan.seed):
        yield Line(*line)
    wrong = asyncio.run(remote.naive_run(2_000, plan.seed))
    yield Line(wrong > 0, "tiers: control that goes on after a cancel is caught", f"{wrong} wrong of 2,000")
    with RedisServer() as redis, PostgresServer() as postgres:
        for server in (Served("redis", redis), Served("postgres", postgres)):
            cancelled, ended, wrong = remote.cancels_run(server, CANCELS, plan.seed)
            figures = f"{cancelled:,} cancelled, {ended:,} ended, {wrong} wrong"
            ok = wrong == 0 and cancelled > CANCELS // 10
            yield Line(ok, f"tiers: {server.kind}, {CANCELS:,} cancels and time-outs", figures)
        hits, lost = remote.hits_lost(postgres)
        yield Line(lost == 0, "tiers: hit counts, answers cut and a restart", f"{hits:,} hits, {lost} lost")
    for kind in ("redis", "postgres"):
        control = children.run("tier_forks", 3, kind, "naive", watchdog=120)
        yield Line(
            control.ok and "failed: 0" not in control.output,
            f"tiers: {kind}, control that shares a connection over a fork is caught",
            control.output.strip() + " of 3",
        )
        forks = children.run("tier_forks", FORKS, kind, watchdog=3_600)
        ok = forks.ok and "failed: 0\nerrors of the parent: 0" in forks.output
        yield Line(ok, f"tiers: {kind}, {FORKS} forks under load", told(forks, ", ".join(forks.output.split("\n"))))


def _of_any(plan: Plan, part: str, server: Served) -> Iterator[Line]:
    for name, outcome in remote.faults(server):
        ok = outcome.wrong == 0 and outcome.overrun < LONGEST_OVERRUN and outcome.recovery < LONGEST_RECOVERY
        yield Line(ok, f"{part}: {name}", str(outcome))
    yield from _ends(part, server)
    yield from _heard(plan, part, server)
    yield from _stampedes(part, server)


def _ends(part: str, server: Served) -> Iterator[Line]:
    for how in remote.EXITS:
        runs = [remote.exit_of(how, server) for _ in range(EXITS_EACH)]
        good = [run for run in runs if run.ok and run.after_last_line - run.late < LONGEST_EXIT and not run.errors]
        bad = next((f"\n{run}" for run in runs if run not in good), "")
        longest = max(run.after_last_line for run in runs)
        figures = (
            f"{len(good)} of {len(runs)} with exit code 0 within {LONGEST_EXIT:g} s, longest {longest:.2f} s,"
            f" {max(run.after_last_line - run.late for run in runs):.2f} s without what the machine was late{bad}"
        )
        yield Line(len(good) == len(runs), f"{part}: exit with {how.replace('_', ', ')}", figures)
    ctrl_c = children.run("tier_interrupts", server.kind, watchdog=300)
    lines = [line.split() for line in ctrl_c.output.splitlines() if line.startswith("took")]
    times = [(float(took), float(took) - float(late)) for _, took, late, *_ in lines] or [(99.0, 99.0)]
    longest, net = (max(column) * 1e3 for column in zip(*times, strict=True))
    figures = f"KeyboardInterrupt after at most {longest:.0f} ms, {net:.0f} ms without what the machine was late"
    ok = ctrl_c.ok and len(lines) >= 10 and net < LONGEST_INTERRUPT * 1e3
    yield Line(ok, f"{part}: Ctrl-C at a frozen server", told(ctrl_c, figures))


def _heard(plan: Plan, part: str, server: Served) -> Iterator[Line]:
    """How late another process sees what was changed: by its own kind of message within max_lag, whatever is cut."""
    seen = heard.of_ours(server, SEEN[server.kind])
    yield Line(seen.worst <= MAX_LAG, f"{part}: a change, seen by another process", str(seen))
    if server.kind == "redis":
        naive = heard.of_foreign(server, 10, "naive")
        yield Line(naive.missed > 0, f"{part}: control that hears of its own writers alone is caught", str(naive))
        seen = heard.of_foreign(server, SEEN[server.kind])
        yield Line(seen.worst <= MAX_LAG, f"{part}: a change by a foreign writer", str(seen))
        cuts = heard.of_cuts(server, len(heard.CUTS), plan.seed, "naive")
        missed = sum(lags.missed for lags in cuts.values())
        yield Line(missed > 0, f"{part}: control that makes up for no message is caught", f"{missed} never seen")
    for how, lags in heard.of_cuts(server, CUTS, plan.seed).items():
        # Who asks on a connection that is half open has his deadline on top: the tier does not answer there.
        limit = MAX_LAG + LONGEST_OVERRUN + (DEADLINE if how == "silence" else 0.0)
        late = f", without what the machine was late {lags.net:.3f} s"
        yield Line(lags.net <= limit, f"{part}: a change beside a cut of the other's link, {how}", f"{lags}{late}")


def _stampedes(part: str, server: Served) -> Iterator[Line]:
    asked = f"{stampedes.PROCESSES} processes x 64 threads, a cold key"
    if server.kind == "redis":
        naive = stampedes.run(server, LOADERS[0], kind="naive")
        yield Line(naive.loads > 1, f"{part}: control with a lock of its own process is caught", str(naive))
    for seconds in LOADERS:
        one = stampedes.run(server, seconds)
        yield Line(one.loads == 1 and not one.wrong, f"{part}: {asked}, a loader of {seconds:g} s", str(one))
    one = stampedes.run(server, LOADERS[1], kill_after=LOADERS[1] / 2)
    ok = one.loads == 2 and not one.wrong and one.again is not None and one.again <= LEASE_AGE / 1e9 + LONGEST_OVERRUN
    yield Line(ok, f"{part}: {asked}, its owner killed in the middle of {LOADERS[1]:g} s", str(one))


__all__ = ["of_both", "of_postgres", "of_redis"]
