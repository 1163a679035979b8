"""The demos that `stillwarm demo` runs: small complete apps, each driven by a client over real HTTP.

Thread rule: each module says its own.
Refuses to know: how results are shown (stillwarm.cli), and what is inside of stillwarm: a demo uses the public names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from stillwarm.demo.step import Progress, Step

DEMOS: Final[dict[str, str]] = {
    "dashboard": "a Flask page that needs seven slow search queries, cached",
    "discovery": "a FastAPI service that asks a slow API which is paid by the token, cached",
    "voc": "a FastAPI status service on a PostgreSQL that is slow, killed and frozen; needs a server or --url",
}


class Demo(Protocol):
    """What every demo is: an app that is up from construction on, its story, and what a person can do with it."""

    @property
    def server(self) -> Any:
        """The app's server; it has a `url`."""

    def story(self, progress: Progress = ...) -> Iterator[Step]:
        """The steps, each as soon as it is over."""

    def invitation(self) -> list[str]:
        """Lines that say what to do with it now."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def demo_class(name: str) -> Any:
    """The class of a demo.

    Raises:
        ModuleNotFoundError: a package that it needs is not installed.
    """
    if name == "discovery":
        from stillwarm.demo.discovery import Discovery

        return Discovery
    if name == "voc":
        from stillwarm.demo.voc import Voc

        return Voc
    from stillwarm.demo.dashboard import Dashboard

    return Dashboard


__all__ = ["DEMOS", "Demo", "demo_class"]
