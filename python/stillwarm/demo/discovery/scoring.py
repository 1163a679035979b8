"""What a product is worth to a reseller: return on investment, velocity, and what follows from both.

The formula is a simple one, and all of it:

- It is bought at today's price and sold at the average of 90 days. A sale costs 15 % of that and 3.00 for shipping.
  roi_percent = 100 * (average * 0.85 - 3.00 - price) / price
- The better its rank, and the more often its rank jumps up (which is what a sale does to it), the sooner it is sold.
  velocity_score = 60 * max(0, 1 - log10(bsr) / 6) + 40 * (days on which the rank improved by 10 % or more) / days
- STRONG_BUY: roi >= 50 and velocity >= 40; BUY: roi >= 30 and velocity >= 30; CONSIDER: roi >= 15 and velocity >= 20;
  SKIP: the rest. Without a price there is nothing to buy: roi 0, SKIP. Without a rank the first part of velocity is 0.

Thread rule: pure functions.
Refuses to know: where products come from and where scores are kept.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final, Literal

Recommendation = Literal["STRONG_BUY", "BUY", "CONSIDER", "SKIP"]

_SHARE: Final = 0.15
_SHIPPING: Final = 3.0
_LEVELS: Final[tuple[tuple[Recommendation, float, float], ...]] = (
    ("STRONG_BUY", 50, 40),
    ("BUY", 30, 30),
    ("CONSIDER", 15, 20),
)


@dataclass(frozen=True)
class Product:
    """A product as the API describes it; prices in the marketplace's currency."""

    asin: str
    title: str
    price: float | None
    bsr: int | None
    average: float | None
    history: tuple[int, ...] = ()


@dataclass(frozen=True)
class Score:
    """What is kept of a product."""

    asin: str
    roi_percent: float
    velocity_score: float
    recommendation: Recommendation
    title: str | None = None
    price: float | None = None
    bsr: int | None = None


def score_of(product: Product) -> Score:
    """The score of a product, by the formula above."""
    roi = roi_of(product.price, product.average)
    velocity = velocity_of(product.bsr, product.history)
    recommendation: Recommendation = "SKIP"
    if product.price:
        recommendation = next((name for name, r, v in _LEVELS if roi >= r and velocity >= v), "SKIP")
    title = product.title[:500]  # as long as its column
    return Score(product.asin, roi, velocity, recommendation, title, product.price, product.bsr)


def roi_of(price: float | None, average: float | None) -> float:
    """Percent, two decimals."""
    if not price or average is None:
        return 0.0
    return round(100 * (average * (1 - _SHARE) - _SHIPPING - price) / price, 2)


def velocity_of(bsr: int | None, history: tuple[int, ...]) -> float:
    """0 to 100, two decimals."""
    rank = max(0.0, 1 - math.log10(bsr) / 6) if bsr else 0.0
    days = list(itertools.pairwise(history))
    jumps = sum(after <= 0.9 * before for before, after in days)
    return round(60 * rank + (40 * jumps / len(days) if days else 0.0), 2)


__all__ = ["Product", "Recommendation", "Score", "roi_of", "score_of", "velocity_of"]
