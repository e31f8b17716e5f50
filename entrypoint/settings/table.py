"""Prints the settings as a Markdown table for the documentation: `python -m entrypoint.settings.table`."""

from __future__ import annotations

from entrypoint.settings.schema import Settings


def markdown_table() -> str:
    """Returns the settings as a Markdown table, for the documentation."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default if field.default_factory is None else None
        text = ",".join(default) if isinstance(default, tuple) else default
        rows.append(f"| `{name.upper()}` | {'' if text is None else f'`{text}`'} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown_table())
