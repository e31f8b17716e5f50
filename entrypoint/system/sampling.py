"""A few items that stand for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Returns at most so many items, evenly spaced among all of them."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]
