"""The allow-list that all HTML of a notebook passes through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.report.clean import clean
from paperlib.report.outputs import first_line, last_state


@pytest.mark.parametrize("address", ["https://a.org/x?y=1", "mailto:a@b.org", "#here", "../dps/a.html#x", "a.html"])
def test_links_that_are_followed_stay(address):
    assert f'href="{address}"' in clean(f'<a href="{address}">x</a>')


@pytest.mark.parametrize(
    "address", ["javascript:x()", "JavaScript:x()", "java&#9;script:x()", " javascript:x()", "data:text/html,x"]
)
def test_links_that_run_code_go(address):
    assert clean(f'<a href="{address}">x</a>') == "<a>x</a>"


def test_unknown_tags_leave_their_text_and_comments_leave_nothing():
    assert clean("<font color=red>a</font><!-- b --><marquee>c</marquee>") == "ac"


@given(st.text(alphabet="<>/scriptonerjavsyleimg=\"' :()-!", max_size=60))
def test_no_handler_or_script_survives(text):
    cleaned = clean(text.replace("<img", "<b"))
    assert "<script" not in cleaned and "<style" not in cleaned and 'href="javascript' not in cleaned


@pytest.mark.parametrize(
    ("stream", "shown"),
    [
        ("a\nb\n", "a\nb\n"),
        (" 0%\r50%\r100%\n", "100%\n"),
        ("a\r\nb", "a\nb"),
        ("\x1b[31mred\x1b[0m\x1b[K\n", "\x1b[31mred\x1b[0m\n"),
        ("1/2\r\x1b[A2/2\r", "2/2"),
    ],
)
def test_a_stream_ends_as_a_terminal_shows_it(stream, shown):
    assert last_state(stream) == shown


def test_the_first_line_says_something():
    assert first_line("# why\n\n%matplotlib inline\nx = 1\ny = 2") == "x = 1"
    assert (first_line("# only this"), first_line("")) == ("# only this", "")
