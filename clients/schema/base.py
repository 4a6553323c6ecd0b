"""The base of all bodies, and the names that requests and responses share.

The clients do not import the models, so the names in Literals stand here a second time; tests/clients/test_schema.py
checks that they equal those of `winnow.models.types`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
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
Truncation = Literal["deadline", "accept_reward"]
AbortReason = Literal["deadline", "accept_reward", "early_rejection"]
FinishReason = Literal["stop", "length", "content_filter"]
"""The models' two, and `content_filter` for the operator's refusal."""
MAX_FIELDS = 64

Neutral = dict[str, tuple[Any, ...]]
"""Known but unsupported fields, each with the values that ask for nothing."""


class Request(BaseModel):
    """A request body: strict ("2" is not 2), and unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    neutral: ClassVar[Neutral] = {}
    """Fields that are ignored at these values and rejected at all others."""

    @model_validator(mode="before")
    @classmethod
    def _reject_unsupported(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        if len(body) > MAX_FIELDS:
            raise invalid(None, f"an object has {len(body)} fields; the limit is {MAX_FIELDS}")
        for name, values in cls.neutral.items():
            if name in body and not any(type(body[name]) is type(value) and body[name] == value for value in values):
                raise PydanticCustomError("unsupported", "{param} is not supported", {"param": name})
        return {name: value for name, value in body.items() if name not in cls.neutral}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the JSON schema, which has the neutral fields too."""
        body = handler.resolve_ref_schema(handler(schema))
        for name, values in cls.neutral.items():
            body["properties"][name] = {"enum": list(values), "description": "Not supported; ignored at these values."}
        return body


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
