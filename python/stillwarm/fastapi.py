"""Stillwarm for FastAPI and Starlette: `from stillwarm.fastapi import Stillwarm`. See `stillwarm.web.fastapi`."""

from stillwarm.web.fastapi import CacheType, ResponseCache, Stillwarm

__all__ = ["CacheType", "ResponseCache", "Stillwarm"]
