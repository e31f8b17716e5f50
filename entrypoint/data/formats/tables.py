"""Tables in CSV files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator

from entrypoint.data.formats.encoding import decode
from entrypoint.data.formats.source import Files
from entrypoint.system import bucket, parallel

DELIMITERS = (",", ";", "\t")
HEAD = 1 << 12  # bytes in which the first row ends

Row = dict[str, str]  # the values by the lower-case names of their columns


def find(files: Files, is_wanted: Callable[[list[str]], bool], *suffixes: str) -> dict[str, str]:
    """Returns the tables whose first row is as wanted, by their keys. Of the others, only the beginning is read.

    Raises:
        UserError: a table is not UTF-8.
    """
    keys = [key for key, cells in first_rows(files, files.with_suffix(*suffixes)).items() if is_wanted(cells)]
    return {key: decode(content, files.root / key) for key, content in sorted(files.read_all(keys))}


def first_rows(files: Files, keys: list[str]) -> dict[str, list[str]]:
    """Returns the cells of the first row of each file. Many files are read at a time, and each once for all formats."""
    new = [key for key in keys if key not in files.first_rows]
    files.first_rows |= dict(
        zip(new, parallel.map_in_order(lambda key: first_row(files, key), new, files.workers), strict=True)
    )
    return {key: files.first_rows[key] for key in keys}


def first_row(files: Files, key: str) -> list[str]:
    """Returns the cells of the first row of a file; an empty list if the file cannot be read."""
    try:
        head = bucket.read_head(files.root / key, HEAD, files.root)
    except OSError as error:
        if error.errno not in bucket.FINAL:
            raise
        return []
    line = head.decode("latin-1").removeprefix("\xef\xbb\xbf").split("\n")[0]
    return next(csv.reader([line.strip()], delimiter=delimiter_of(line)), [])


def delimiter_of(line: str) -> str:
    """Returns the delimiter that a line has most of."""
    return max(DELIMITERS, key=line.count)


def rows_of(table: str) -> Iterator[list[str]]:
    """Yields the cells of each row without white space around them; blank rows are left out."""
    lines = table.splitlines()
    for cells in csv.reader(lines, delimiter=delimiter_of(lines[0]) if lines else ","):
        if any(cell.strip() for cell in cells):
            yield [cell.strip() for cell in cells]


def named_rows_of(table: str) -> Iterator[Row]:
    """Yields the rows behind the first one, which has the names of the columns."""
    rows = rows_of(table)
    columns = [name.lower() for name in next(rows, [])]
    for cells in rows:
        yield dict(zip(columns, cells, strict=False))
