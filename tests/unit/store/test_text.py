from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.store.text import escape, storable, unescape

any_text = st.text(st.characters(codec=None, exclude_categories=()))


@given(any_text)
def test_what_is_storable_is_utf8_without_nul(text):
    kept = storable(text)
    assert b"\0" not in kept.encode()
    assert len(kept) == len(text)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_what_postgres_can_keep_is_kept(text):
    assert storable(text) == text


@given(any_text)
def test_escaping_is_exact_and_ascii(text):
    assert escape(text).isascii()
    assert "\0" not in escape(text)
    assert unescape(escape(text)) == text


def test_plain_text_is_readable_when_escaped():
    assert escape("HTTP 500 from café") == r"HTTP 500 from caf\xe9"
