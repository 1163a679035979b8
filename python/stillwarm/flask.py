"""Stillwarm for Flask: `from stillwarm.flask import Stillwarm`. See `stillwarm.web.flask`."""

from stillwarm.web.flask import CacheType, ResponseCache, Stillwarm

__all__ = ["CacheType", "ResponseCache", "Stillwarm"]
