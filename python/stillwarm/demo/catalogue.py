"""What the stand-in product API has: products by marketplace and category, the same ones each time.

Thread rule: any thread; `add` before somebody asks for what it adds.
Refuses to know: HTTP, tokens, latencies.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

Product = dict[str, Any]

DOMAINS: Final = range(1, 12)
CATEGORIES: Final[dict[int, str]] = {
    283155: "Books",
    172282: "Electronics",
    1055398: "Home & Kitchen",
    165793011: "Toys & Games",
    3375251: "Sports",
    228013: "Tools",
}
BESTSELLERS: Final = 40
_LETTERS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ADJECTIVES: Final = (
    "Compact",
    "Deluxe",
    "Folding",
    "Classic",
    "Portable",
    "Caf\u00e9",
    "Heavy-Duty",
    "Mini",
    "Pro",
    "\u00c9clair",
)
_THINGS: Final[dict[int, tuple[str, ...]]] = {
    283155: ("Cookbook", "Atlas", "Guide to <b>Knots</b>", "Grammar", "Novel"),
    172282: ("Headphones", "Keyboard", 'Monitor 24"', "Charger", "Speaker"),
    1055398: ("Kettle", "Pan & Lid", "Lamp", "Scale", "Toaster"),
    165793011: ("Puzzle", "Train Set", "Doll's House", "Card Game", "Kite"),
    3375251: ("Mat", "Dumbbell", "Racket", "Tent", "Helmet"),
    228013: ("Drill", "Saw", "Level", "Wrench Set", "Sander"),
}


class Catalogue:
    """40 best sellers in each of six categories of each marketplace, and 40 over all categories (category 0)."""

    def __init__(self) -> None:
        self._products: dict[tuple[int, str], Product] = {}
        self._lists: dict[tuple[int, int], list[str]] = {}
        for domain in DOMAINS:
            everything = []
            for category, name in CATEGORIES.items():
                made = [_product(domain, category, name, place) for place in range(BESTSELLERS)]
                self._lists[domain, category] = [one["asin"] for one in made]
                everything += made
            self._products.update({(domain, one["asin"]): one for one in everything})
            ranked = sorted(everything, key=lambda one: one["bsr"] or 2**31)
            self._lists[domain, 0] = [one["asin"] for one in ranked[:BESTSELLERS]]

    def bestsellers(self, domain: int, category: int) -> list[str]:
        """Ids of a category, the best first; 0 stands for all of them.

        Raises:
            LookupError: there is no such marketplace or category.
        """
        if (domain, category) not in self._lists:
            raise LookupError(f"there is no category {category} in domain {domain}")
        return list(self._lists[domain, category])

    def products(self, domain: int, asins: Iterable[str]) -> list[Product]:
        """Those of the products that there are."""
        found = (self._products.get((domain, asin)) for asin in asins)
        return [one for one in found if one is not None]

    def add(self, domain: int, category: int, product: Product) -> None:
        """Puts a product at the top of a category."""
        self._products[domain, product["asin"]] = product
        self._lists[domain, category].insert(0, product["asin"])


def _product(domain: int, category: int, name: str, place: int) -> Product:
    draw = random.Random(f"{domain}:{category}:{place}")
    usual = round(draw.uniform(12, 120), 2)
    bsr = place * 900 + draw.randrange(1, 900)
    sells = draw.random()
    history = [max(1, round(bsr * draw.uniform(0.6, 1.7 if draw.random() < sells else 1.05))) for _ in range(30)]
    return {
        "asin": "B0" + "".join(draw.choices(_LETTERS, k=8)),
        "title": f"{draw.choice(_ADJECTIVES)} {draw.choice(_THINGS[category])}, {name} No. {place + 1}",
        # One in 20 is out of stock, and one in 40 has no rank: both have to be coped with.
        "price": None if draw.random() < 0.05 else round(usual * draw.uniform(0.3, 1.05), 2),
        "bsr": None if draw.random() < 0.025 else bsr,
        "stats": {"avg90": usual, "min90": round(usual * 0.7, 2), "max90": round(usual * 1.3, 2)},
        "bsr_history": history,
    }


__all__ = ["BESTSELLERS", "CATEGORIES", "DOMAINS", "Catalogue", "Product"]
