"""Prints the bytes per operation that each workload of reliability/leaks.py leaves behind.

    leaks.py OPERATIONS [NAME...]

Thread rule: a process of its own, so that nothing else allocates.
Refuses to know: what is acceptable.
"""

from __future__ import annotations

import sys

from reliability.leaks import WORKLOADS, slope

for name in sys.argv[2:] or WORKLOADS:
    print(name, f"{slope(name, int(sys.argv[1])):.3f}", flush=True)
