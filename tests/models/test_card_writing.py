"""Cards as TOML text: no field is lost."""

from __future__ import annotations

import datetime
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.cards.card import card_text, parse_card, shipped_files
from winnow.models.cards.evidence import CalibrationRecord
from winnow.models.cards.writing import to_toml, with_calibration

RECORD = CalibrationRecord(data="held, out", n=3, date=datetime.date(2026, 11, 26), precision=0.9, recall=0.5)
plain = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**40), 2**40), st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False), st.dates(),
)  # fmt: skip
tables = st.dictionaries(st.from_regex(r"\A[a-z_]{1,8}\Z"), st.one_of(plain, st.lists(plain, max_size=3)), max_size=4)


@given(tables, tables, st.lists(tables, min_size=1, max_size=2))
def test_toml_is_read_as_it_was_written(values: dict[str, object], table: object, listed: object) -> None:
    whole = {**values, "A": table, "B": listed}
    assert tomllib.loads(to_toml(whole)) == whole


@pytest.mark.parametrize("entry", shipped_files(), ids=lambda entry: entry.name)
def test_a_shipped_card_keeps_all_but_its_calibration(entry: object) -> None:
    text, name = card_text(entry), entry.name  # type: ignore[arg-type, attr-defined]
    before, after = parse_card(text, name), parse_card(with_calibration(text, name, -2.5, 1e-7, RECORD), name)
    assert after == replace(before, scale=-2.5, bias=1e-7, calibrated=True, calibration=RECORD)


def test_a_card_that_denied_its_calibration_has_one() -> None:
    text = with_calibration('calibrated = false\nnote = "a\\n\\"b\\""\n', "x.toml", 1.0, 0.0, RECORD)
    assert parse_card(text, "x.toml").calibrated
    again = with_calibration(text, "x.toml", 2.0, 0.0, RECORD)
    assert parse_card(again, "x.toml").note == 'a\n"b"'
