"""What the stand-in search server has: orders and products in memory, and a figure or a list for each of its queries.

Seven queries make up the dashboard, 610 ms together; the other four are one page's each.

Thread rule: any thread; lists only grow, and a price is one assignment.
Refuses to know: HTTP, latencies being waited for, and that there are caches.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

Document = dict[str, Any]

LATENCY_MS: Final[dict[str, int]] = {
    "orders": 130,
    "revenue": 110,
    "customers": 95,
    "average_order": 85,
    "top_product": 75,
    "countries": 65,
    "largest_order": 50,
}
PAGE_LATENCY_MS: Final[dict[str, int]] = {"recent": 60, "find": 180, "product": 90, "customer": 120, "report": 400}
_THINGS: Final = ("kettle", "lamp", "scarf", "teapot", "blanket", "mug")
_COLOURS: Final = ("red", "green", "blue", "yellow", "black", "white", "grey", "brown", "pink", "violet")
_COUNTRIES: Final = ("AT", "DE", "DK", "ES", "FR", "IT", "NL", "PL", "SE")
CUSTOMERS: Final = 100
PRODUCTS: Final = 300


class Documents:
    """500 orders of 100 customers, and 300 products; the same ones each time."""

    def __init__(self) -> None:
        draw = random.Random(610)
        self.orders: list[Document] = [
            {
                "customer": f"customer-{draw.randrange(CUSTOMERS)}",
                "product": draw.choice(_THINGS),
                "country": draw.choice(_COUNTRIES),
                "amount": round(draw.uniform(5, 250), 2),
            }
            for _ in range(500)
        ]
        self.products: list[Document] = [
            {
                "id": number,
                "name": self.name_of(number),
                "price": round(draw.uniform(5, 250), 2),
            }
            for number in range(PRODUCTS)
        ]

    @staticmethod
    def name_of(product: int) -> str:
        return f"{_COLOURS[product % 10]} {_THINGS[product // 10 % 6]} {product // 60}"

    def answer(self, query: str, of: str = "") -> Any:
        """The figure or list of a query as of now; `of` says of what: a text, an id, a customer, a number of orders.

        Raises:
            LookupError: there is no such query, or nothing of that id.
        """
        if query in _FIGURES:
            return _FIGURES[query](list(self.orders))
        if query == "recent":
            return self.orders[-5:]
        if query == "find":
            words = of.lower().split()
            return [one for one in self.products if all(word in one["name"].split() for word in words)][:10]
        if query == "product":
            if not of.isdecimal() or int(of) >= len(self.products):
                raise LookupError(f"there is no product {of!r}; accepted: 0 to {len(self.products) - 1}")
            return dict(self.products[int(of)])
        if query == "customer":
            amounts = [order["amount"] for order in list(self.orders) if order["customer"] == of]
            return {"customer": of, "orders": len(amounts), "spent": round(sum(amounts), 2)}
        if query == "report":
            countries = Counter(order["country"] for order in self.orders[-int(of) :])
            return dict(countries.most_common())
        raise LookupError(f"there is no query {query!r}; accepted: {', '.join((*LATENCY_MS, *PAGE_LATENCY_MS))}")

    def add(self, order: Document) -> int:
        """Takes an order; how many there are then."""
        self.orders.append(order)
        return len(self.orders)

    def set_price(self, product: int, price: float) -> None:
        """Changes a product's price.

        Raises:
            LookupError: there is no such product.
        """
        if not 0 <= product < len(self.products):
            raise LookupError(f"there is no product {product}")
        self.products[product]["price"] = price


def _top_product(orders: list[Document]) -> str:
    return Counter(order["product"] for order in orders).most_common(1)[0][0] if orders else ""


_FIGURES: Final[dict[str, Callable[[list[Document]], Any]]] = {
    "orders": len,
    "revenue": lambda orders: round(sum(order["amount"] for order in orders), 2),
    "customers": lambda orders: len({order["customer"] for order in orders}),
    "average_order": lambda orders: round(sum(order["amount"] for order in orders) / max(1, len(orders)), 2),
    "top_product": _top_product,
    "countries": lambda orders: len({order["country"] for order in orders}),
    "largest_order": lambda orders: max((order["amount"] for order in orders), default=0),
}

__all__ = ["CUSTOMERS", "LATENCY_MS", "PAGE_LATENCY_MS", "PRODUCTS", "Documents"]
