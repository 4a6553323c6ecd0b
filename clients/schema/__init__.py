"""The JSON bodies on the wire, shared by the server and the clients: OpenAI's, plus the `best_of_n` object.

`requests` and `responses` have the bodies, `best_of_n` the objects of that name in both, `base` the rules for all.
"""

from winnow.clients.schema.base import (
    AbortReason,
    BranchName,
    CombinerName,
    FinishReason,
    Reduction,
    Request,
    Response,
    Truncation,
)
from winnow.clients.schema.best_of_n import (
    AbortedCandidate,
    BestOfNOptions,
    BestOfNReport,
    CandidateRange,
    EarlyRejectionOptions,
    Failed,
    Progress,
    ProgressReport,
    Rating,
    Scored,
    TimingsMs,
    UsageScope,
)
from winnow.clients.schema.requests import (
    MAX_PROMPT_TOKENS,
    UNSEEDED,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    RewardsRequest,
    StreamOptions,
    TextPart,
    TextRequest,
    TokenizeRequest,
    WithoutEffect,
)
from winnow.clients.schema.responses import (
    AnswerMessage,
    CalibratedOn,
    ChatCompletion,
    ChatCompletionChunk,
    ChatLogprobs,
    Choice,
    ChunkChoice,
    CompletionTokensDetails,
    Delta,
    Detokenized,
    ErrorBody,
    ErrorDetail,
    Gpu,
    ModelCard,
    ModelList,
    Rewards,
    SampledLogprob,
    ServedBy,
    Status,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    TokenLogprob,
    Tokens,
    Unavailable,
    Usage,
    Version,
)

__all__ = [
    "MAX_PROMPT_TOKENS", "UNSEEDED", "AbortReason", "AbortedCandidate", "AnswerMessage", "BestOfNOptions",
    "BestOfNReport", "BranchName", "CalibratedOn", "CandidateRange", "ChatCompletion", "ChatCompletionChunk",
    "ChatLogprobs", "ChatMessage", "ChatRequest", "Choice", "ChunkChoice", "CombinerName", "CompletionRequest",
    "CompletionTokensDetails", "Delta", "DetokenizeRequest", "Detokenized", "EarlyRejectionOptions", "ErrorBody",
    "ErrorDetail", "Failed", "FinishReason", "Gpu", "ModelCard", "ModelList", "Progress", "ProgressReport", "Rating",
    "Reduction", "Request", "Response", "Rewards", "RewardsRequest", "SampledLogprob", "Scored", "ServedBy", "Status",
    "StreamOptions", "TextChoice", "TextCompletion", "TextLogprobs", "TextPart", "TextRequest", "TimingsMs",
    "TokenLogprob", "TokenizeRequest", "Tokens", "Truncation", "Unavailable", "Usage", "UsageScope", "Version",
    "WithoutEffect",
]  # fmt: skip
