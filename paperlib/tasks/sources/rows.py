"""Rows of the official file formats, one (line number, {column.

Value}) at a time; malformed ones raise InputError with file and line.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from paperlib.errors import InputError

Row = tuple[int, dict]


def malformed(path: Path, line: int, what: str) -> InputError:
    """The error for a bad row: names the file, the line (from 1) and what was expected there."""
    return InputError(f"{path}, line {line}: {what}")


def tsv(path: Path, columns: list[str], names: tuple[str, ...] = (), drop_short: bool = False) -> Iterator[Row]:
    """Rows of a tab-separated file.

    A quote is text; the header is the first line unless ``names`` gives it.
    """
    lines = _lines(path)
    if not names:
        names = tuple(next(lines, (1, ""))[1].split("\t"))
    positions = _positions(path, columns, names)
    for line, text in lines:
        fields = text.split("\t")
        if len(fields) < len(names) and drop_short:
            continue
        if len(fields) != len(names):
            raise malformed(
                path,
                line,
                f"{len(fields)} columns, expected {len(names)} ({', '.join(names)}), separated by tabs",
            )
        yield line, {column: fields[position] for column, position in positions.items()}


def quoted_csv(path: Path, columns: list[str]) -> Iterator[Row]:
    """Rows of a comma-separated file with a header, fields quoted where they need it.

    The line is the one on which the row ends.
    """
    reader = csv.reader((text + "\n" for _, text in _lines(path)), strict=True)
    try:
        names = next(reader, [])
        positions = _positions(path, columns, tuple(names))
        for fields in reader:
            if len(fields) != len(names):
                raise malformed(
                    path,
                    reader.line_num,
                    f"{len(fields)} columns, expected {len(names)} ({', '.join(names)})",
                )
            yield reader.line_num, {column: fields[position] for column, position in positions.items()}
    except csv.Error as error:
        raise malformed(path, reader.line_num, f"not comma-separated text ({error})") from None


def jsonl(path: Path) -> Iterator[Row]:
    """Rows of a file with one JSON object on each line."""
    for line, text in _lines(path):
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise malformed(path, line, f"not JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(row, dict):
            raise malformed(path, line, f"a JSON {type(row).__name__}, expected an object")
        yield line, row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends, byte-order mark and blank lines.

    Only a line feed ends a line: the texts hold other separators.
    """
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise malformed(path, line, f"not UTF-8 (byte {error.start + 1} of the line)") from None
            if text:
                yield line, text


def _positions(path: Path, columns: list[str], names: tuple[str, ...]) -> dict[str, int]:
    missing = [column for column in columns if column not in names]
    if missing:
        raise malformed(path, 1, f"no column {missing[0]!r}; the header has {', '.join(names) or 'nothing'}")
    return {column: names.index(column) for column in columns}
