"""The setup of all HTML reports: a template environment that finds `page.css`, and rows for tables of settings.

A page is one file without scripts that fetches nothing. Its template includes
`page.css` inside `<style>`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.models.reporting.numbers import count

if TYPE_CHECKING:
    import jinja2

MOST_CHARACTERS = 6000
_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need, and that cannot reorder or hide a text."""
_ODD = re.compile(r"[^\n\t -~\u00a1-\u00ac\u00ae-\u02ff]")


def environment(templates: Path) -> jinja2.Environment:
    """Return an environment that loads from `templates`, rejects undefined names and escapes all text.

    Text is made visible before it is escaped, so that untrusted text (see `visible`) can stand on a page.
    """
    import jinja2
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a dotted name and a value for each value of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def visible(text: str) -> str:
    """Return `text` with every character visible, cut after `MOST_CHARACTERS`.

    Control and format characters, lone surrogates and line separators could vanish, reorder a line or break the
    page. They are replaced by a picture, ␀, or by their number, ⟨U+202E⟩.
    """
    shown = _ODD.sub(_spelled, text[:MOST_CHARACTERS])
    left = len(text) - MOST_CHARACTERS
    return shown if left <= 0 else f"{shown} … ({count(left)} more characters)"


def _spelled(match: re.Match[str]) -> str:
    character = match.group()
    if character in _JOINERS or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
