"""The discovery demo: a FastAPI app (`app`), its page, and the story that a client acts out with it (`story`).

Thread rule: each module says its own.
Refuses to know: how the story is shown.
"""

from stillwarm.demo.discovery.app import create_app
from stillwarm.demo.discovery.site import Discovery

__all__ = ["Discovery", "create_app"]
