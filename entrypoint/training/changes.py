"""The table of the values that a job writes into a pipeline.config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Changes:
    """The values that this job writes into a config: for each field its name, the old value and the new value."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def set(self, message: Any, path: str, name: str, value: Any) -> None:
        """Sets a field and records the change; a list replaces a repeated field."""
        before = getattr(message, name)
        if isinstance(value, list):
            before = list(before)
            message.ClearField(name)
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
        if before != value:
            self.rows.append((f"{path}.{name}", shown(before), shown(value)))


def shown(value: Any) -> str:
    """Returns a field's value as text for the table."""
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
