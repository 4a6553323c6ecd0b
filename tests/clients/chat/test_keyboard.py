from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

from winnow.clients.chat.keyboard import BURST, merged

PRESSES = st.one_of(
    st.characters(exclude_categories=["Cs", "Cc"]).map(KeyPress),
    st.sampled_from([KeyPress(Keys.ControlM, "\r"), KeyPress(Keys.ControlJ, "\n"), KeyPress(Keys.Left, "\x1b[D")]),
)


@given(st.lists(PRESSES, max_size=BURST - 1))
def test_what_a_person_types_is_passed_on_key_by_key(keys: list[KeyPress]) -> None:
    assert list(merged(keys)) == keys


@given(st.lists(st.text("abc é", max_size=3 * BURST), max_size=4))
def test_a_run_of_characters_is_one_paste(lines: list[str]) -> None:
    end = KeyPress(Keys.ControlJ, "\n")
    keys = [key for line in lines for key in [*map(KeyPress, line), end]]
    found = list(merged(keys))
    assert "".join(key.data for key in found) == "".join(f"{line}\n" for line in lines)
    pastes = [key.data for key in found if key.key == Keys.BracketedPaste]
    assert pastes == [line for line in lines if len(line) >= BURST]
