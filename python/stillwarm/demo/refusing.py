"""How the demos' FastAPI apps refuse a body.

Thread rule: pure.
Refuses to know: what was asked for.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import Response


def refused(_: Any, error: Any) -> Response:
    """As FastAPI does it, but without what was sent: that may be text that no encoding has, and it is known there."""
    detail = [{name: one[name] for name in ("type", "loc", "msg")} for one in error.errors()]
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")


__all__ = ["refused"]
