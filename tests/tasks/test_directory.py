"""Official file layouts: every reader on small made-up files, and every way a file can be wrong."""

import json

import pytest

from paperlib.errors import InputError
from paperlib.tasks import get, inventory, load


def write(root, name, content):
    """``content``: text, bytes, or a list of JSON objects."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(frame):
    return frame.to_numpy().tolist()


def loaded(root, name, split="train"):
    task = get(name)
    frame = load(task, "directory", root)[split]
    assert list(frame.columns) == task.frame_columns
    return rows(frame)


# --- TSV


def test_cola_has_no_header_in_train_and_one_in_test(tmp_path):
    write(tmp_path, "glue/CoLA/train.tsv", "x01\t1\t\tThe cat sleeps.\nx01\t0\t*\tCat the sleep.\n")
    write(tmp_path, "glue/CoLA/test.tsv", "index\tsentence\n0\tDogs bark.\n")
    assert loaded(tmp_path, "cola") == [["The cat sleeps.", 1], ["Cat the sleep.", 0]]
    assert inventory(get("cola"), "directory", tmp_path) == {"train": 2, "test": 1}


def test_a_lone_quote_is_text(tmp_path):
    write(tmp_path, "glue/SST-2/train.tsv", 'sentence\tlabel\n" fine \t1\nnot "so\t0\n')
    assert loaded(tmp_path, "sst2") == [['" fine ', 1], ['not "so', 0]]


def test_only_a_line_feed_ends_a_line(tmp_path):
    write(tmp_path, "glue/SST-2/train.tsv", "sentence\tlabel\r\na\u2028b\x85c\t1\r\n")
    assert loaded(tmp_path, "sst2") == [["a\u2028b\x85c", 1]]


def test_mrpc_with_a_byte_order_mark(tmp_path):
    text = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe ran .\tHe was running .\n"
    write(tmp_path, "glue/MRPC/train.tsv", text)
    assert loaded(tmp_path, "mrpc") == [["He ran .", "He was running .", 1]]


def test_stsb_takes_columns_8_and_9_and_the_score(tmp_path):
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    write(tmp_path, "glue/STS-B/train.tsv", header + "0\tg\tf\t2012\t1\tnone\tnone\tA dog.\tA cat.\t2.500\n")
    assert loaded(tmp_path, "stsb") == [["A dog.", "A cat.", 2.5]]


def test_qqp_drops_rows_cut_by_a_line_break(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    cut = "3\t6\t7\tWho is\nhe?\tWho?\t1\n"
    write(
        tmp_path,
        "glue/QQP/train.tsv",
        header + "1\t2\t3\tWhy?\tHow come?\t1\n" + cut + "2\t4\t5\tA?\tB?\t0\n",
    )
    assert loaded(tmp_path, "qqp") == [["Why?", "How come?", 1], ["A?", "B?", 0]]


def test_mnli_matched_and_mismatched(tmp_path):
    parses = [
        "index",
        "promptID",
        "pairID",
        "genre",
        "sentence1_binary_parse",
        "sentence2_binary_parse",
        "sentence1_parse",
        "sentence2_parse",
        "sentence1",
        "sentence2",
    ]
    train = "\t".join([*parses, "label1", "gold_label"]) + "\n"
    dev = "\t".join([*parses, *(f"label{i}" for i in range(1, 6)), "gold_label"]) + "\n"
    start = "0\t1\t1a\tfiction\t( a )\t( b )\t(A)\t(B)\tIt rained.\tIt was wet.\t"
    write(tmp_path, "glue/MNLI/train.tsv", train + start + "neutral\tneutral\n")
    write(tmp_path, "glue/MNLI/dev_matched.tsv", dev + start + "neutral\t" * 5 + "entailment\n")
    write(tmp_path, "glue/MNLI/dev_mismatched.tsv", dev + start + "neutral\t" * 5 + "contradiction\n")
    assert loaded(tmp_path, "mnli") == [["It rained.", "It was wet.", 1]]
    assert loaded(tmp_path, "mnli", "validation")[0][-1] == 0
    assert loaded(tmp_path, "mnli", "validation_mismatched")[0][-1] == 2


@pytest.mark.parametrize(
    "name, folder, first, second",
    [("qnli", "QNLI", "question", "sentence"), ("rte", "RTE", "sentence1", "sentence2")],
)
def test_textual_labels(tmp_path, name, folder, first, second):
    header = f"index\t{first}\t{second}\tlabel\n"
    write(tmp_path, f"glue/{folder}/train.tsv", header + "0\tA?\tB.\tentailment\n1\tC?\tD.\tnot_entailment\n")
    assert loaded(tmp_path, name) == [["A?", "B.", 0], ["C?", "D.", 1]]


def test_snli_drops_rows_without_an_agreed_label(tmp_path):
    write(tmp_path, "nli/SNLI/train.tsv", "premise\thypothesis\tlabel\na\tb\t2\nc\td\t-1\ne\tf\t-\ng\th\t0\n")
    assert loaded(tmp_path, "snli") == [["a", "b", 2], ["g", "h", 0]]
    assert inventory(get("snli"), "directory", tmp_path) == {"train": 2}


def test_sick_with_carriage_returns(tmp_path):
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\tM\r\n"
    write(tmp_path, "nli/SICK/SICK_test_annotated.txt", header + "1\ta\tb\t4.5\tNEUTRAL\tM\r\n")
    assert loaded(tmp_path, "sick", "test") == [["a", "b", 1]]


def test_scitail_is_quoted_csv(tmp_path):
    text = 'premise,hypothesis,label\n"Ice, snow ""and"" hail",Cold.,not_entailment\nA,B,entailment\n'
    write(tmp_path, "nli/SciTail/test_as_dev.csv", text)
    assert loaded(tmp_path, "scitail", "test") == [['Ice, snow "and" hail', "Cold.", 1], ["A", "B", 0]]


# --- JSON lines

FLAT = {
    "boolq": (
        "BoolQ",
        {"question": "is it so", "passage": "It is so.", "label": True},
        ["is it so", "It is so.", 1],
    ),
    "cb": ("CB", {"premise": "p", "hypothesis": "h", "label": "neutral"}, ["p", "h", 2]),
    "superglue_rte": ("RTE", {"premise": "p", "hypothesis": "h", "label": "not_entailment"}, ["p", "h", 1]),
    "wic": (
        "WiC",
        {"word": "set", "sentence1": "A set.", "sentence2": "Set it.", "label": False},
        ["A set.", "Set it.", "set", 0],
    ),
    "copa": (
        "COPA",
        {"premise": "p", "choice1": "a", "choice2": "b", "question": "effect", "label": 1},
        ["p", "a", "b", "effect", 1],
    ),
}


@pytest.mark.parametrize("name", FLAT)
def test_flat_superglue(tmp_path, name):
    folder, row, expected = FLAT[name]
    write(tmp_path, f"superglue/{folder}/train.jsonl", [row | {"idx": 0}])
    unlabelled = {key: value for key, value in row.items() if key != "label"}
    write(tmp_path, f"superglue/{folder}/test.jsonl", [unlabelled, unlabelled])
    assert loaded(tmp_path, name) == [expected]
    assert inventory(get(name), "directory", tmp_path) == {"train": 1, "test": 2}


def multirc_line(text, *questions):
    """``questions``: (question, [(answer, label), ...])."""
    return {
        "idx": 9,
        "passage": {
            "text": text,
            "questions": [
                {"question": question, "answers": [{"text": a, "label": label} for a, label in answers]}
                for question, answers in questions
            ],
        },
    }


def test_multirc_has_one_row_per_answer_and_counts_its_own_groups(tmp_path):
    first = multirc_line("One.", ("q1?", [("x", 1), ("y", 0)]), ("q2?", [("z", 1)]))
    write(tmp_path, "superglue/MultiRC/train.jsonl", [first, multirc_line("Two.", ("q1?", [("x", 0)]))])
    assert loaded(tmp_path, "multirc") == [
        ["One.", "q1?", "x", 0, 0, 1],
        ["One.", "q1?", "y", 0, 0, 0],
        ["One.", "q2?", "z", 0, 1, 1],
        ["Two.", "q1?", "x", 1, 2, 0],
    ]


def record_line(text, spans, *queries):
    """``spans``: (start, end) of the entities; ``queries``: (query, answers)."""
    return {
        "passage": {"text": text, "entities": [{"start": start, "end": end} for start, end in spans]},
        "qas": [
            {"query": query, "answers": [{"text": answer, "start": 0, "end": 0} for answer in answers]}
            for query, answers in queries
        ],
    }


def test_record_reads_inclusive_spans_and_keeps_distinct_strings(tmp_path):
    line = record_line(
        "Ada met Bob. Ada left.",
        [(0, 2), (8, 10), (13, 15)],
        ("@placeholder left.", ["Ada", "Ada"]),
        ("Ada met @placeholder.", ["Bob"]),
    )
    write(tmp_path, "superglue/ReCoRD/train.jsonl", [line])
    passage = "Ada met Bob. Ada left."
    assert loaded(tmp_path, "record") == [
        [passage, "@placeholder left.", ["Ada", "Bob"], ["Ada"], 0, 0],
        [passage, "Ada met @placeholder.", ["Ada", "Bob"], ["Bob"], 0, 1],
    ]


def test_record_test_split_is_counted_without_answers(tmp_path):
    line = record_line("Ada met Bob.", [(0, 2)], ("@placeholder met Bob.", []))
    del line["qas"][0]["answers"]
    write(tmp_path, "superglue/ReCoRD/test.jsonl", [line])
    assert inventory(get("record"), "directory", tmp_path) == {"test": 1}


# --- what is absent


def test_unknown_source():
    with pytest.raises(InputError, match="unknown source 'web'; known: hub, directory, diagnostics"):
        load(get("rte"), "web")


def test_no_data_folder(tmp_path):
    with pytest.raises(InputError, match="give --data DIR"):
        load(get("rte"), "directory")
    with pytest.raises(InputError, match=r"data folder .*absent does not exist; give --data DIR"):
        load(get("rte"), "directory", tmp_path / "absent")


def test_no_task_folder(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*glue.RTE for RTE; expected .* train.tsv, dev.tsv, test.tsv"):
        load(get("rte"), "directory", tmp_path)


def test_empty_task_folder(tmp_path):
    (tmp_path / "glue/RTE").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no file of RTE in .*RTE; expected train.tsv, dev.tsv, test.tsv"):
        load(get("rte"), "directory", tmp_path)


def test_only_an_unlabelled_split(tmp_path):
    write(tmp_path, "glue/RTE/test.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n")
    with pytest.raises(InputError, match=r"no labelled split of RTE in .*; expected one of train.tsv, dev.tsv"):
        load(get("rte"), "directory", tmp_path)
    assert inventory(get("rte"), "directory", tmp_path) == {"test": 1}


def test_a_file_without_rows(tmp_path):
    write(tmp_path, "glue/RTE/train.tsv", "index\tsentence1\tsentence2\tlabel\n")
    with pytest.raises(InputError, match=r"train.tsv holds no labelled row of RTE"):
        load(get("rte"), "directory", tmp_path)


# --- what is malformed: file, line, and what was expected

RTE, STSB = "index\tsentence1\tsentence2\tlabel\n", "sentence1\tsentence2\tscore\n"
PASSAGE = {"passage": {"text": "Ada.", "entities": [{"start": 0, "end": 2}]}}
MALFORMED = {
    "too few columns": (
        "rte",
        RTE + "0\ta\tb\tentailment\n1\ta\tb\n",
        3,
        r"3 columns, expected 4 \(index, sentence1, sentence2, label\)",
    ),
    "too many columns": ("rte", RTE + "0\ta\tb\tc\tentailment\n", 2, "5 columns, expected 4"),
    "too many in QQP": ("qqp", "question1\tquestion2\tis_duplicate\na\tb\t1\t1\n", 2, "4 columns"),
    "no label column": ("rte", "index\tsentence1\tsentence2\n0\ta\tb\n", 1, "no column 'label'; the header"),
    "empty file": ("rte", "", 1, "no column 'sentence1'; the header has nothing"),
    "unknown label": (
        "rte",
        RTE + "0\ta\tb\tmaybe\n",
        2,
        "'label' is 'maybe', expected one of 'entailment', 'not_entailment'",
    ),
    "headless row": ("cola", "x\t1\t\tFine.\nx\t1\tFine.\n", 2, "3 columns, expected 4"),
    "word for a score": (
        "stsb",
        STSB + "a\tb\thigh\n",
        2,
        "'score' is 'high', expected a number from 0 to 5",
    ),
    "score out of range": ("stsb", STSB + "a\tb\t5.5\n", 2, "expected a number from 0 to 5"),
    "score not finite": ("stsb", STSB + "a\tb\tnan\n", 2, "expected a number from 0 to 5"),
    "not UTF-8": ("rte", RTE.encode() + b"0\ta\xff\tb\tentailment\n", 2, r"not UTF-8 \(byte 4"),
    "csv columns": ("scitail", "premise,hypothesis,label\na,b\n", 2, "2 columns, expected 3"),
    "csv quoting": ("scitail", 'premise,hypothesis,label\n"a"b,c,entailment\n', 2, "not comma-sep"),
    "not JSON": ("cb", '{"premise": "p"\n', 1, r"not JSON \(.* at column"),
    "not an object": ("cb", "[1]\n", 1, "a JSON list, expected an object"),
    "missing key": ("cb", [{"premise": "p", "label": "neutral"}], 1, "no key 'hypothesis'; found 'premise'"),
    "text that is none": (
        "cb",
        [{"premise": 3, "hypothesis": "h", "label": "neutral"}],
        1,
        "'premise' is 3, expected text",
    ),
    "label of another type": (
        "boolq",
        [{"question": "q", "passage": "p", "label": "yes"}],
        1,
        "'label' is 'yes', expected one of False, True",
    ),
    "label is a list": ("cb", [{"premise": "p", "hypothesis": "h", "label": []}], 1, "expected one of"),
    "no questions": ("multirc", [{"passage": {"text": "t"}}], 1, "no key 'questions'; found 'text'"),
    "questions no list": ("multirc", [{"passage": {"text": "t", "questions": {}}}], 1, "expected list"),
    "question no object": (
        "multirc",
        [{"passage": {"text": "t", "questions": ["q"]}}],
        1,
        "'questions' holds 'q', expected objects",
    ),
    "answer label": ("multirc", [multirc_line("t", ("q", [("a", 2)]))], 1, "expected one of 0, 1"),
    "no placeholder": (
        "record",
        [PASSAGE | {"qas": [{"query": "Who?", "answers": []}]}],
        1,
        "a query without '@placeholder'",
    ),
    "span outside": (
        "record",
        [record_line("Ada.", [(0, 9)], ("@placeholder", []))],
        1,
        r"entity span 0..9 lies outside the passage of 4 characters",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_rows_name_file_and_line(tmp_path, case):
    name, content, line, message = MALFORMED[case]
    files = get(name).files
    path = write(tmp_path, f"{files.folder}/{files.splits['test' if name == 'scitail' else 'train']}", content)
    with pytest.raises(InputError, match=message) as error:
        load(get(name), "directory", tmp_path)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert "\n" not in str(error.value)
