"""Warming up routes: asks an app for URLs, in its own process, so that their answers are stored before clients come.

A URL is asked for as a client would, host and all: the host is part of an answer's key.

Thread rule: any thread.
Refuses to know: what the app does with a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from werkzeug.test import Client

from stillwarm._durations import shown
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from flask import Flask

    from stillwarm._cache import Cache
    from stillwarm._warm import Progress, Warmed


class NotWarmedError(Exception):
    """The app answered a URL with an error, which is not stored."""


def warm_up(
    cache: Cache,
    app: Flask,
    urls: Iterable[str],
    headers: Mapping[str, str] | None,
    at_once: int,
    progress: Progress | None,
) -> Warmed:
    """What `Stillwarm.warm_up` does."""
    if isinstance(urls, str):
        raise ConfigError(f"urls={shown(urls)}: accepted: a list of URLs")
    work = [(_get, app, absolute(app, url), dict(headers or {})) for url in urls]
    return cache.warm(work, at_once=at_once, progress=progress)


def absolute(app: Flask, url: Any) -> str:
    """The URL with scheme and host.

    Raises:
        ConfigError: it has no host, and the app's SERVER_NAME names none.
    """
    if isinstance(url, str):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.netloc:
            return url
        host = app.config.get("SERVER_NAME")
        if host and url.startswith("/") and not url.startswith("//"):
            return f"{app.config['PREFERRED_URL_SCHEME']}://{host}{url}"
    raise ConfigError(
        f"urls: {shown(url)}: accepted: a URL as clients ask for it, https://host/path, since the host is part of the "
        "key; or /path where the app has a SERVER_NAME"
    )


def _get(app: Flask, url: str, headers: dict[str, str]) -> None:
    parts = urlsplit(url)
    client = Client(app, use_cookies=False)
    # Path and host apart: from one text, the client would take its own host.
    with client.get(
        parts.path, base_url=f"{parts.scheme}://{parts.netloc}", query_string=parts.query, headers=headers
    ) as response:
        if response.status_code >= 400:
            raise NotWarmedError(f"{url} answered {response.status}")


__all__ = ["warm_up"]
