"""Jinja chat templates, run as transformers runs them: sandboxed, with its filters, functions and tags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jinja2 import Environment, Template

COMPILED = 16
"""Templates that are kept compiled."""
MAX_REASON = 200
"""Characters of a template's own reason that are shown."""
FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""Exceptions that a template's own expressions raise on values that its author did not expect."""
NO_NAMES = {"bos_token": "", "eos_token": "", "unk_token": "", "pad_token": ""}
"""The special tokens' names while a dialog is checked without a tokenizer."""


class Refused(Exception):
    """The template cannot render the messages; the message says why, in one line."""


def render(source: str, messages: Sequence[Mapping[str, str]], names: Mapping[str, Any], *, to_answer: bool) -> str:
    """Return `messages` as the template renders them, with the opening of an answer if `to_answer`.

    `names` are those of the special tokens.

    Raises:
        Refused: it raises an error, its own or Jinja's.
    """
    from jinja2 import TemplateError

    try:
        template = _compiled(source)
        return template.render(
            messages=list(messages), tools=None, documents=None, add_generation_prompt=to_answer, **names
        )
    except TemplateError as error:
        raise Refused(_one_line(error.message or type(error).__name__)) from None
    except FAULTS as error:
        raise Refused(f"it raises {type(error).__name__} on them") from None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_REASON].rstrip(".")


@lru_cache(COMPILED)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


def _environment() -> Environment:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks an assistant's text for trainers; here it is rendered as it is."""

        tags = {"generation"}  # noqa: RUF012, Jinja's own declaration

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(reason: str) -> NoReturn:
        raise TemplateError(reason)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
