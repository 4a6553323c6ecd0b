"""Jinja templates run as transformers runs them, and reach nothing outside."""

from __future__ import annotations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from winnow.models.chat_templates.sandbox import NO_NAMES, Refused, render

DIALOG = [{"role": "user", "content": "<b>né</b> \n"}, {"role": "assistant", "content": "x"}]
ROUND, END = "{% for i in range(99999) %}", "{% endfor %}"
SOURCES = (
    "{{ 'a' * 3 }}{{ 2 ** 10 }}{{ '%-5s|' % 'x' }}{{ [1] + [2] }}{% for m in messages %}{{ loop.length }}{% endfor %}",
    "{% for m in messages %}\n  {% if loop.first %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}",
    "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}",
    "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
    "{% generation %}{{ messages[1].content }}{% endgeneration %}{{ strftime_now('%Y') }}",
    "{{ bos_token }}{% if tools is none and documents is none %}!{% endif %}{% if add_generation_prompt %}?{% endif %}",
    "{% set ns = namespace(a='') %}{% for m in messages %}{% set ns.a = ns.a + m.role %}{% endfor %}{{ ns.a }}",
    "{%- macro f(x) -%}[{{ x | trim }}]{%- endmacro -%}{{ f(messages[0]['content']) }}{{ messages[::-1] | length }}",
)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("to_answer", [True, False])
def test_a_text_is_that_of_transformers(source: str, to_answer: bool) -> None:
    names = {**NO_NAMES, "bos_token": "<s>"}
    theirs, _ = render_jinja_template(
        [DIALOG], tools=None, documents=None, chat_template=source, add_generation_prompt=to_answer, **names
    )
    assert render(source, DIALOG, names, to_answer=to_answer) == theirs[0]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('Only\nuser   messages.') }}", "Only user messages"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__subclasses__() }}", "unsafe"),
        ("{{ nothing.at_all }}", "undefined"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% include 'x' %}", "TypeError"),
        ("{% endif %}", "endif"),
        ("{{ raise_exception('red \x1b[31m\x00text') }}", r"red \[31m text"),
        (f"{ROUND}{ROUND}{ROUND}x{END}{END}{END}", "its loops go round more than 250,000 times"),
        (f"{{% macro f() %}}{ROUND}{END}{{% endmacro %}}{ROUND}{{{{ f() }}}}{END}", "its loops go round"),
        ("{{ 'a' * 10**10 }}", "its operator \\* makes something of more than 10,000,000"),
        ("{{ 10**10 * messages }}", "its operator \\* makes"),
        ("{{ 9 ** 99999999 }}", r"its operator \*\* makes"),
        ("{{ '%99999999999d' % 1 }}", "its operator % makes"),
        ("{{ '%0*d' % (10**10, 1) }}", "its operator % makes"),
        (
            "{% set n = namespace(a='ab') %}{% for i in range(60) %}{% set n.a = n.a + n.a %}{% endfor %}",
            "operator \\+",
        ),
    ],
)
def test_what_fails_is_a_refusal_in_one_line(source: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as caught:
        render(source, DIALOG, NO_NAMES, to_answer=True)
    assert "\n" not in str(caught.value)
