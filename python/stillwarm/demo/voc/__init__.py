"""The voc demo: a status service that must not fail (`app`), and the story that a client acts out with it (`story`).

Thread rule: each module says its own.
Refuses to know: how the story is shown.
"""

from stillwarm.demo.voc.app import create_app
from stillwarm.demo.voc.site import Voc

__all__ = ["Voc", "create_app"]
