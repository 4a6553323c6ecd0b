"""The base of all bodies, and the names that requests and responses share.

The clients do not import the models, so the names in Literals stand here a second time; tests/clients/test_schema.py
checks that they equal those of `winnow.models.types`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

CombinerName = Literal["llama2", "safe_first"]
BranchName = Literal["safety_prompt", "unsafe", "helpful"]
Reduction = Literal["load", "deadline", "temperature"]
Truncation = Literal["deadline", "accept_reward"]
AbortReason = Literal["deadline", "accept_reward", "early_rejection", "adaptive"]
StoppedBy = Literal["reward", "gain", "candidates", "load", "deadline"]
FinishReason = Literal["stop", "length", "content_filter"]
"""The models' two, and `content_filter` for the operator's refusal."""
MAX_FIELDS = 128
"""Most fields of an object; a request with every field of OpenAI's and vLLM's has about 90."""

Neutral = dict[str, tuple[Any, ...]]
"""Known but unsupported fields, each with the values, beside null, that ask for nothing."""


def integral(value: Any) -> Any:
    """Return a whole number that is written as 8.0 as an integer, also inside a list; anything else unchanged."""
    if type(value) is float and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if type(value) is list and float in set(map(type, value)):
        return [integral(item) for item in value]
    return value


INTEGRAL = BeforeValidator(integral)
"""Marks an integer field: JSON has one kind of number, and some encoders write 8 as 8.0."""


class Request(BaseModel):
    """A request body: strict ("2" is not 2), and unknown fields are rejected.

    A field in `neutral` is dropped at the values named there; at any other it is rejected like an unknown one.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    neutral: ClassVar[Neutral] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        if len(body) > MAX_FIELDS:
            raise invalid(None, f"an object has {len(body)} fields; the limit is {MAX_FIELDS}")
        return {name: value for name, value in body.items() if not cls._asks_nothing(name, value)}

    @classmethod
    def _asks_nothing(cls, name: str, value: Any) -> bool:
        if name not in cls.neutral:
            return False
        return value is None or any(_equal(value, neutral) for neutral in cls.neutral[name])

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the JSON schema, which has the neutral fields too."""
        body = handler.resolve_ref_schema(handler(schema))
        for name, values in cls.neutral.items():
            body["properties"][name] = {
                "enum": [None, *values],
                "description": "Not supported; ignored at these values.",
            }
        return body


def _equal(value: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    return (type(value) is bool) == (type(other) is bool) and bool(value == other)


def invalid(param: str | None, message: str) -> PydanticCustomError:
    """Return the error of a validator: `message` is the whole sentence, `param` the field, relative to the model."""
    return PydanticCustomError("invalid_request", "{message}", {"message": message, "param": param})


class Response(BaseModel):
    """A response body; fields unknown to this version are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    optional: ClassVar[frozenset[str]] = frozenset()
    """Fields left out of the JSON while they are None. All other fields are always present, as null if need be."""

    @model_serializer(mode="wrap")
    def _omit_optional(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = serialize(self)
        return {name: value for name, value in body.items() if value is not None or name not in self.optional}
