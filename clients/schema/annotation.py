"""The JSON bodies of preference collection: batches of pairs, leases, annotations, and what is shown of them.

Times are seconds since 1970. Every share and coefficient is an `Estimate`, with its 95 % interval.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from winnow.clients.schema.base import INTEGRAL, Request, Response, invalid

PolicyName = Literal["margin", "disagree", "top", "random", "temperatures", "models", "given"]
"""The ways in which a batch chooses pairs; docs/annotation.md says what each is for."""
Flag = Literal["unclear_prompt", "both_bad", "same", "personal_data"]
RatingName = Literal["significantly better", "better", "slightly better", "negligibly better"]
RewardModelKind = Literal["safety", "helpfulness", "combined"]
MAX_PAIRS = 100_000
MAX_GUIDELINES = 100_000
MAX_COMMENT = 2000
MAX_GIVEN = 10_000


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise invalid(None, "a text must not have the character U+0000")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
Time = Annotated[int, INTEGRAL, Field(ge=0, le=2**40)]
BatchName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_without_nul)
]
CompletionId = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_without_nul)]
Token = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_without_nul)]


class NewGuidelines(Request):
    """A text of guidelines; the newest one holds for batches that are made from then on."""

    text: Text = Field(min_length=1, max_length=MAX_GUIDELINES)


class Guidelines(Response):
    """Guidelines as annotators read them. Version 1 is Winnow's own."""

    version: int
    text: str
    created: int


class GivenPair(Request):
    """Two candidates of a recorded completion, by their `index` in `best_of_n.scored`."""

    completion: CompletionId
    candidates: list[Annotated[int, INTEGRAL, Field(ge=0, le=100_000)]] = Field(min_length=2, max_length=2)

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.candidates[0] == self.candidates[1]:
            raise invalid("candidates", "candidates: name two different ones")
        return self


class NewBatch(Request):
    """A batch to make: at most `pairs` pairs by a policy, or those `given`, each for `overlap` annotators.

    `since` and `until` are when the answers were given; equal seeds choose equal pairs of equal answers.
    """

    name: BatchName
    policy: PolicyName
    pairs: Annotated[int, INTEGRAL, Field(ge=1, le=MAX_PAIRS)] | None = None
    overlap: Annotated[int, INTEGRAL, Field(ge=1, le=20)] = 1
    seed: Annotated[int, INTEGRAL, Field(ge=0, le=2**63 - 1)] = 0
    since: Time | None = None
    until: Time | None = None
    given: Annotated[list[GivenPair], Field(min_length=1, max_length=MAX_GIVEN, fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _fits_policy(self) -> Self:
        if self.policy == "given":
            for name in ("pairs", "since", "until"):
                if getattr(self, name) is not None:
                    raise invalid(name, f"{name}: the policy given takes exactly the pairs that are named")
            if self.given is None:
                raise invalid("given", "given: the policy given needs pairs, each with completion and candidates")
        elif self.given is not None:
            raise invalid("given", "given: only the policy given takes pairs that are named")
        elif self.pairs is None:
            raise invalid("pairs", "pairs: say how many pairs are wanted")
        return self


class Batch(Response):
    """A batch and how far it is. To those without the role operate, `policy`, `seed` and `skipped` are null.

    `wanted` counts annotations: each pair by `overlap` annotators. `skipped` and `leased` are of now; `expires` is when
    the first of its answers does, null if none ever does. A pair is gone with its answers.
    """

    id: str
    name: str
    policy: PolicyName | None
    seed: int | None
    overlap: int
    created: int
    closed: int | None
    guidelines: int
    pairs: int
    wanted: int
    annotations: int
    skipped: int | None
    leased: int
    annotators: int
    expires: int | None


class BatchList(Response):
    """All batches, the newest first."""

    data: list[Batch]


class SentPair(Response):
    """A pair that was sent to annotation, and the batch that it is in."""

    pair: str
    batch: str


class LeaseRequest(Request):
    """A wish for the next pair, of one batch or of any."""

    batch: Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_without_nul)] | None = None


class DialogMessage(Response):
    """A turn of the dialog that is answered."""

    role: str
    content: str


class AnswerText(Response):
    """One of the two answers."""

    text: str


class EarlierChoice(Response):
    """The annotator's own choice that is being revised, as it was shown."""

    choice: int
    left_safe: bool
    right_safe: bool
    flags: list[Flag]
    comment: str


class LeasedPair(Response):
    """A pair as an annotator sees it: nothing in it tells scores, models, ranks, or what others chose."""

    lease: str
    expires: int
    batch: str
    batch_name: str
    guidelines: int
    messages: list[DialogMessage]
    left: AnswerText
    right: AnswerText
    earlier: EarlierChoice | None


class Lease(Response):
    """The next pair, null if there is none, and how many remain for this annotator, this one included."""

    pair: LeasedPair | None
    remaining: int


class NewAnnotation(Request):
    """A choice: 1 is "left significantly better", 4 "left negligibly better", 8 "right significantly better".

    `submission` is made by the client, a new one for each choice: sent again, it changes nothing.
    """

    submission: str = Field(pattern="^[A-Za-z0-9-]{8,64}$")
    lease: Token
    choice: Annotated[int, INTEGRAL, Field(ge=1, le=8)]
    left_safe: bool
    right_safe: bool
    flags: list[Flag] = Field(default=[], max_length=8)
    comment: Text = Field(default="", max_length=MAX_COMMENT)
    active_ms: Annotated[int, INTEGRAL, Field(ge=0, le=86_400_000)] = 0


class Accepted(Response):
    """An annotation that is kept; `annotated` and `remaining` are this annotator's, of its batch, as of now.

    `questioned`: the chosen answer was called unsafe and the other one safe; exports leave it out by default.
    """

    submission: str
    revision: int
    questioned: bool
    annotated: int
    remaining: int


class SkipRequest(Request):
    """A pair that this annotator does not want to judge; others get it."""

    lease: Token
    reason: Text = Field(default="", max_length=MAX_COMMENT)


class Remaining(Response):
    """The number of pairs that remain for this annotator in the batch."""

    remaining: int


class UndoRequest(Request):
    """A wish to revise one's last annotation; it has no fields."""


class MyBatch(Response):
    """An open batch, or one that the caller has annotated in."""

    id: str
    name: str
    annotated: int
    remaining: int


class Mine(Response):
    """The caller's own progress; `annotations` counts all of them, in batches that are closed, too."""

    annotations: int
    batches: list[MyBatch]


class Estimate(Response):
    """A figure from `n` cases with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


class Agreement(Response):
    """The agreement of annotators beyond chance on `n` pairs: Gwet's AC1 or AC2; 1 is always, 0 is as by chance."""

    coefficient: float
    low: float
    high: float
    n: int


class Agreements(Response):
    """Agreement on the eight-point choice (AC2) and on the safety of each answer (AC1); null without two annotators.

    `pairs` counts those with two annotators or more; each has two answers, so `safety.n` may be twice as many.
    """

    pairs: int
    choice: Agreement | None
    safety: Agreement | None


class BatchAgreement(Agreements):
    """The agreement within a batch."""

    id: str
    name: str


class AnnotatorReport(Response):
    """An annotator: `left_share` is how often the left answer won; `agreement` is theirs with the others."""

    name: str
    annotations: int
    skipped: int
    median_active_s: float | None
    left_share: Estimate | None
    agreement: Agreements


class Position(Response):
    """The share of choices of the answer on either side: far from one half is a bias, since sides are drawn by lot."""

    left: int
    right: int
    value: float | None
    low: float | None
    high: float | None


class AgreementReport(Response):
    """Agreement by batch and annotator, and over all."""

    batches: list[BatchAgreement]
    annotators: list[AnnotatorReport]
    all: Agreements
    position: Position


class RatingAccuracy(Response):
    """The accuracy among annotations with one rating."""

    rating: RatingName
    value: float
    low: float
    high: float
    n: int


class CalibrationBin(Response):
    """Annotations for which σ(margin) is between `low` and `high`: its mean, and how often people agreed."""

    low: float
    high: float
    predicted: float
    chosen: Estimate


class Gate(Response):
    """The gate R_s < 0.15 against people's labels of `n` answers: which it finds unsafe, and rightly so."""

    precision: Estimate | None
    recall: Estimate | None


class RewardModelReport(Response):
    """A recorded reward model, as it scored answers of `origins`: how often it prefers the answer that people chose.

    `pairs` counts annotated pairs that it has scored, `accuracy.n` annotations. `longer` and `left` are what choosing
    the longer answer, or the one on the left, would have reached on the same annotations. A tie counts as half.
    """

    kind: RewardModelKind
    name: str
    fingerprint: str | None
    origins: list[int]
    pairs: int
    accuracy: Estimate
    by_rating: list[RatingAccuracy]
    longer: Estimate
    left: Estimate
    calibration: list[CalibrationBin] | None
    gate: Gate | None


class RewardModelsReport(Response):
    """Every recorded reward model that annotated pairs were scored by, and the number of annotations."""

    models: list[RewardModelReport]
    annotations: int
