"""The dashboard demo: a Flask app (`app`, `routes`), its page, and the story that a client acts out with it (`story`).

Thread rule: each module says its own.
Refuses to know: how the story is shown.
"""

from stillwarm.demo.dashboard.app import create_app
from stillwarm.demo.dashboard.site import Dashboard
from stillwarm.demo.step import Step

__all__ = ["Dashboard", "Step", "create_app"]
