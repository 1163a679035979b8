"""The demos that `stillwarm demo` runs: small complete apps, each driven by a client over real HTTP.

Thread rule: each module says its own.
Refuses to know: how results are shown (stillwarm.cli), and what is inside of stillwarm: a demo uses the public names.
"""

from __future__ import annotations

from typing import Final

DEMOS: Final[dict[str, str]] = {
    "dashboard": "a Flask page that needs seven slow search queries, cached",
}

__all__ = ["DEMOS"]
