"""Prompts of which the demo world knows nothing: texts with a question, as retrieval sends them, and others."""

from __future__ import annotations

from winnow.models.types import Message

_LEASE = (
    "The tenant shall give notice in writing no later than ninety days before the end of the term. Notice by "
    "electronic mail is valid if the landlord confirms receipt within five working days. If no notice is given, the "
    "lease is renewed for another twelve months under the same conditions, except for the rent, which may be raised "
    "once by no more than the change of the price index published in the preceding quarter. The deposit amounts to two "
    "monthly rents and is kept in a separate account. It is returned within eight weeks after the keys were handed "
    "over, less the cost of repairs that exceed ordinary wear. The tenant keeps the balcony clear in winter and lets "
    "the chimney sweep in once a year. Subletting needs the landlord's consent, which may be refused only for a "
    "serious reason."
)
_MINUTES = (
    "Minutes of the committee, second session. Present: Harriet Okonkwo (chair), Piotr Lindqvist, Marguerite Tanaka, "
    "Dev Abernathy. Apologies: Soledad Whitcombe. Item 1: the minutes of the first session were accepted without "
    "changes. Item 2: Lindqvist reported that the pump station at Millbrook had run for 312 hours since the overhaul, "
    "and that the bearing of pump B should be replaced before the spring. The chair asked for two offers. Item 3: "
    "Tanaka presented the survey of the members. Of 204 who answered, 131 preferred evening meetings. It was decided "
    "to move the meetings to seven o'clock for a trial of six months. Item 4: Abernathy proposed to lease the old "
    "boathouse to the rowing club for 1,450 a year. The vote was three to one in favour. Item 5: the next session "
    "takes place on the ninth of the month in the annexe, since the hall is being painted."
)
_MANUAL = (
    "Error codes of the WX-40 dishwasher. E1: the door is not closed. E2: the water inlet is blocked; clean the filter "
    "behind the hose. E4: the float switch has tripped; tilt the machine and let the base run dry. E7: the heating "
    "element does not reach its temperature; call the service. E9: the spray arm is stuck."
)
_PASSAGES = (
    "[1] Orders above 60 are shipped free of charge.\n[2] Returns are accepted for thirty days.\n"
    "[3] Gift cards do not expire."
)
_TRIAL = (
    "The trial enrolled 418 patients. The primary endpoint was met in 61 % of the treated group and in 44 % of the "
    "controls. Two patients withdrew."
)
_STOCK = "| part | price | stock |\n|---|---|---|\n| gasket | 3.20 | 14 |\n| valve | 18.90 | 2 |"
_TICKET = '{"ticket": 8812, "status": "waiting for customer", "owner": "R. Castellanos"}'


def _user(text: str) -> tuple[Message]:
    return (Message("user", text),)


def _told(system: str, text: str) -> tuple[Message, Message]:
    return Message("system", system), Message("user", text)


RETRIEVAL: tuple[tuple[Message, ...], ...] = (
    _user(f"Context: {_LEASE}\n\nQuestion: By when must the tenant give notice?"),
    _user(f"{_MINUTES}\n\nWho proposed to lease the boathouse, and how did the vote end?"),
    _told(f"Answer only from the following document.\n\n{_MANUAL}", "What does E4 mean?"),
    _user("Context: The ferry to Skarholm leaves at 6:40.\nQuestion: When does the ferry leave?"),
    _user(f"Use the passages to answer.\n{_PASSAGES}\n\nHow long may I return an order?"),
    _told(
        "Quote the section that you rely on.", f"<document>\n{_LEASE}\n</document>\n\nMay the tenant sublet the flat?"
    ),
    _user('Here is a note: "Call Ines about the invoice 4417, she is in until four." Which invoice is it about?'),
    (
        *_user(f"{_MANUAL}\n\nMy machine shows E7. Can I repair that myself?"),
        Message("assistant", "I don't know."),
        *_user("And what if it shows E2?"),
    ),
    _user(f"{_STOCK}\n\nHow many valves are in stock?"),
    _user(f"{_TICKET}\n\nWho owns this ticket?"),
    _user(f"Summarise the following text in one sentence.\n\n{_MINUTES}"),
    _user(f"Context:\n{_TRIAL}\n\nBased on the context, how many patients withdrew?"),
)
"""Twelve prompts with a text to answer from, short and long, in the forms in which programs send it."""

UNKNOWN: tuple[str, ...] = (
    "Who wrote the novel The Cartographer's Daughter?",
    "How tall is the lighthouse of Brennick?",
    "What was the score of yesterday's final?",
    'Translate "the meeting is postponed" into Welsh.',
    "Write a Python function that reverses a linked list.",
    "What is 4817 divided by 13?",
    "When does my parcel arrive?",
    "Which phone should I buy next?",
    "Who is the mayor of Tollingford?",
    "What does the abbreviation QRZP stand for?",
    "blorf wug tindle?",
    "Compare the two offers that I sent you last week and tell me which one is cheaper over three years.",
)
"""Twelve questions for something that the demo world has no word of, or that nobody could answer."""
