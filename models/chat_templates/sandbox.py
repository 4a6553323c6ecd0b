"""Jinja chat templates, run as transformers runs them: sandboxed, with its filters, functions and tags.

A template comes with a checkpoint, from strangers, and runs for each request: so its loops, and what operators make of
small numbers, are bounded, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jinja2 import Environment, Template

COMPILED = 16
"""Templates that are kept compiled."""
_STEP = "winnow_step"
"""The function that each round of a loop calls, by the name that it has in a template."""
_DIGITS = re.compile(r"\d{6,}")
MAX_REASON = 200
"""Characters of a template's own reason that are shown."""
MAX_STEPS = 250_000
"""Times that the loops of a template go round while one dialog is rendered; less than a second."""
MAX_SIZE = 10_000_000
"""Characters or items that an operator may make, and bits of a power."""
FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError, MemoryError)
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
            messages=list(messages),
            tools=None,
            documents=None,
            add_generation_prompt=to_answer,
            **names,
            **{_STEP: _Steps()},
        )
    except TemplateError as error:
        raise Refused(_one_line(error.message or type(error).__name__)) from None
    except FAULTS as error:
        raise Refused(f"it raises {type(error).__name__} on them") from None


def _one_line(text: str) -> str:
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(plain.split())[:MAX_REASON].rstrip(".")


class _Steps:
    """Counts how often the loops go round in one rendering."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def __call__(self) -> None:
        from jinja2 import TemplateError

        self._left -= 1
        if self._left < 0:
            raise TemplateError(f"its loops go round more than {MAX_STEPS:,} times")


def _require_small(operator: str, left: Any, right: Any) -> None:
    """Check the size of what an operator is about to make."""
    from jinja2 import TemplateError

    size = 0
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        size = left.bit_length() * right
    elif operator == "*" and isinstance(left, int) and isinstance(right, str | list | tuple):
        size = left * len(right)
    elif operator == "*" and isinstance(right, int) and isinstance(left, str | list | tuple):
        size = right * len(left)
    elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        size = len(left) + len(right)
    elif operator == "%" and isinstance(left, str):
        widths = right if isinstance(right, tuple) else (right,)
        size = max([int(digits[:9]) for digits in _DIGITS.findall(left)] + [0])
        size = max([size, *(int(abs(width)) for width in widths if isinstance(width, int) and "*" in left)])
    if size > MAX_SIZE:
        raise TemplateError(f"its operator {operator} makes something of more than {MAX_SIZE:,}")


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

    class Bounded(ImmutableSandboxedEnvironment):
        """Bounds loops and operators."""

        intercepted_binops = frozenset(("+", "*", "**", "%"))

        def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
            tree = super()._parse(source, name, filename)
            for loop in tree.find_all(nodes.For):
                loop.body.insert(0, nodes.ExprStmt(nodes.Call(nodes.Name(_STEP, "load"), [], [], None, None)))
            tree.set_environment(self)
            return tree

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _require_small(operator, left, right)
            return super().call_binop(context, operator, left, right)

    environment = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
