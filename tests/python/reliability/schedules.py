"""Runs the machine of model.py over a subject.

Thread rule: one thread; the clock is the process's.
Refuses to know: pytest.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from reliability.model import Machine
from reliability.subjects import Ours


def schedules(subject: type[Ours], *, examples: int, seed: int, steps: int = 50) -> None:
    """Raises AssertionError, with the steps that lead there, if a promise is broken."""
    control = subject is not Ours
    machine = type(subject.__name__, (Machine,), {"subject": subject})
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate] if control else [Phase.generate, Phase.shrink],  # a control need only be caught
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seeded(seed)(machine), settings=how)
