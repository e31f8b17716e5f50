"""Writes the parts of the documentation that are made from the code: `python -m docs.generate`.

Each part stands between two marks, such as `<!-- begin settings -->` and `<!-- end settings -->`. check.schema.json and
metrics.schema.json are files of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from docs.schemas import schemas
from entrypoint.results.export import formats
from entrypoint.settings import table

ROOT = Path(__file__).resolve().parent.parent
# What lies beside entrypoint/, for the tree.
OTHERS = {
    "Dockerfile, start.sh, Makefile": "the image, what a service starts, and every command",
    "requirements*.in, requirements*.txt": "the packages that are imported, and the locks with hashes",
    "pipelines/": "a pipeline.config for each tuned model, and zoo.csv, the catalogue",
    "sdists/": "how object_detection and slim are built from the published source, and the compatibility layer in them",
    "jobs/": "a manifest for each training service",
    "docs/": "this site",
    "tests/": "mirrors entrypoint/; beside that end_to_end, image, jobs, mounts, upstream, zoo",
    "benchmarks/": "what the performance figures are measured with",
}
ROOMS = ("system", "settings", "zoo", "data", "engines", "training", "results")


def parts() -> dict[tuple[str, str], str]:
    """Returns the text of each part by the page and the name in its marks."""
    return {
        ("settings.md", "settings"): table.markdown_table(),
        ("design.md", "tree"): "```\n" + "\n".join(tree()) + "\n```",
        ("results.md", "programs"): "\n\n".join(programs()),
    }


def programs() -> Iterator[str]:
    """Yields the program of each export format that has one."""
    for each in map(formats.format_of, formats.NAMES):
        if each.snippet:
            yield f"`{each.folder}/`:\n\n```python\n{each.snippet}```"


def tree() -> Iterator[str]:
    """Yields the lines of the file tree; each module is described by the first sentence of its docstring."""
    source = ROOT / "entrypoint"
    yield "entrypoint/"
    for path in sorted(source.glob("*.py"), key=lambda path: (path.stem.startswith("__init__"), path.name)):
        if path.name != "__init__.py":
            yield line(path, 1)
    for room in ROOMS:
        yield line(source / room, 1)
        yield from below(source / room, 2)
    for names, words in OTHERS.items():
        yield f"{names}  {words}"


def below(folder: Path, depth: int) -> Iterator[str]:
    """Yields a line for each module of a package, then for each package in it."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.suffix == ".py" and path.name != "__init__.py":
            yield line(path, depth)
        elif (path / "__init__.py").is_file():
            yield line(path, depth)
            yield from below(path, depth + 1)


def line(path: Path, depth: int) -> str:
    """Returns the line of a module or a package."""
    name = f"{path.name}/" if path.is_dir() else path.name
    module = path / "__init__.py" if path.is_dir() else path
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    sentence = " ".join(docstring.split("\n\n")[0].split()).rstrip(".")
    return f"{'  ' * depth}{name.ljust(max(1, 26 - 2 * depth))}  {sentence}"


def filled(text: str, name: str, content: str) -> str:
    """Returns a page with the content between the marks of that name.

    Raises:
        ValueError: the page does not have the marks.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page lacks {begin} or {end}")
    return f"{head}{begin}\n\n{content}\n\n{end}{tail}"


if __name__ == "__main__":
    for (page, name), content in parts().items():
        path = ROOT / "docs" / page
        path.write_text(filled(path.read_text(encoding="utf-8"), name, content), encoding="utf-8")
    for name, content in schemas().items():
        (ROOT / "docs" / name).write_text(content, encoding="utf-8")
