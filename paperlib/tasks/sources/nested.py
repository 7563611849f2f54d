"""MultiRC and ReCoRD: passages with questions inside, flattened to one row per answer or per query."""

from collections.abc import Iterator
from pathlib import Path

from paperlib.tasks.sources.rows import Row, jsonl, malformed


def multirc(path: Path, labelled: bool) -> Iterator[Row]:
    """One row per answer; ``paragraph_idx`` and ``question_idx`` count from 0 within the file."""
    question_idx = -1
    for paragraph_idx, (line, row) in enumerate(jsonl(path)):
        passage = _get(path, line, row, "passage", dict)
        for question in _items(path, line, passage, "questions"):
            question_idx += 1
            for answer in _items(path, line, question, "answers"):
                yield (
                    line,
                    {
                        "paragraph": _get(path, line, passage, "text", str),
                        "question": _get(path, line, question, "question", str),
                        "answer": _get(path, line, answer, "text", str),
                        "paragraph_idx": paragraph_idx,
                        "question_idx": question_idx,
                    }
                    | ({"label": _get(path, line, answer, "label", int)} if labelled else {}),
                )


def record(path: Path, labelled: bool) -> Iterator[Row]:
    """One row per query; entities and answers are distinct strings, ``passage_idx`` counts from 0."""
    for passage_idx, (line, row) in enumerate(jsonl(path)):
        passage = _get(path, line, row, "passage", dict)
        text = _get(path, line, passage, "text", str)
        entities = _distinct(_span(path, line, text, span) for span in _items(path, line, passage, "entities"))
        for question in _items(path, line, row, "qas"):
            query = _get(path, line, question, "query", str)
            if "@placeholder" not in query:
                raise malformed(path, line, "a query without '@placeholder'")
            answers = _items(path, line, question, "answers") if labelled else []
            yield (
                line,
                {
                    "passage": text,
                    "query": query,
                    "entities": entities,
                    "answers": _distinct(_get(path, line, answer, "text", str) for answer in answers),
                    "passage_idx": passage_idx,
                },
            )


def _get(path: Path, line: int, row: dict, key: str, kind: type):
    if key not in row:
        raise malformed(path, line, f"no key {key!r}; found {', '.join(map(repr, row)) or 'nothing'}")
    if not isinstance(row[key], kind):
        raise malformed(path, line, f"{key!r} is {row[key]!r:.60}, expected {kind.__name__}")
    return row[key]


def _items(path: Path, line: int, row: dict, key: str) -> list[dict]:
    items = _get(path, line, row, key, list)
    for item in items:
        if not isinstance(item, dict):
            raise malformed(path, line, f"{key!r} holds {item!r:.60}, expected objects")
    return items


def _span(path: Path, line: int, text: str, span: dict) -> str:
    """The entity's characters; ``end`` is inclusive in the official files."""
    start, end = _get(path, line, span, "start", int), _get(path, line, span, "end", int)
    if not 0 <= start <= end < len(text):
        raise malformed(path, line, f"entity span {start}..{end} lies outside the passage of {len(text)} characters")
    return text[start : end + 1]


def _distinct(strings: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(strings))
