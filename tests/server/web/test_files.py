"""The page's files: types, tags, and what the page's own policy lets them hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.server.web.files import CONTENT_SECURITY_POLICY, FOLDER, MEDIA_TYPES, PageFile, page_files

FILES = page_files()
WRITTEN_HERE = [path for path in sorted(FOLDER.iterdir()) if path.stem != "vendor"]


def test_every_file_is_served() -> None:
    assert len(FILES) == len(list(FOLDER.iterdir()))
    assert FILES["/"].body.startswith(b"<!doctype html>")
    assert {path for path in FILES if path != "/"} == {
        f"/page/{path.name}" for path in FOLDER.iterdir() if path.name != "index.html"
    }
    assert {file.media_type for file in FILES.values()} <= set(MEDIA_TYPES.values())


def test_files_that_are_asked_for_exist() -> None:
    for path in WRITTEN_HERE:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r'from "\./([^"]+)"', text) + re.findall(r'(?:href|src)="page/([^"]+)"', text):
            assert f"/page/{name}" in FILES, (path.name, name)


def test_nothing_points_elsewhere_and_nothing_is_made_of_text() -> None:
    """No address of another host, and none of the ways by which text becomes HTML or code."""
    for path in WRITTEN_HERE:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), path.name
        assert not re.search(r"innerHTML|outerHTML|dangerously|insertAdjacent|eval\(|Function\(|document\.cookie", text)
        assert not re.search(r"<script(?! type=\"module\" src=)|\sstyle=|\son[a-z]+=\"", text), path.name


def test_the_policy_forbids_everything_but_the_servers_own() -> None:
    rules = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split("; "))
    assert rules["default-src"] == "'none'"
    assert set(rules.values()) == {"'none'", "'self'", "'script'"}
    assert not re.search(r"unsafe|\*|data:|blob:|https?:", CONTENT_SECURITY_POLICY)


@pytest.mark.parametrize(
    ("header", "is_known"),
    [
        (None, False),
        ("", False),
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ('"x",W/"abc" ', True),
        ("*", True),
        ("abc", False),
        ('"abcd"', False),
    ],
)
def test_if_none_match(header: str | None, is_known: bool) -> None:
    assert PageFile(b"", "", '"abc"').is_known(header) is is_known


@given(st.text(max_size=40))
def test_another_tag_never_matches(header: str) -> None:
    assert not PageFile(b"", "", '"a-tag-of-40-characters-or-more-000000000"').is_known(header.replace("*", ""))
