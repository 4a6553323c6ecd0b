"""The Arrow types of the columns. A kind is a plain type, a list of ids or of messages, or a model of the wire."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from winnow.server.distill.export.columns import FIELDS, Kind

_PLAIN = {str: "string", int: "int64", float: "float64", bool: "bool", type(None): "string"}


def arrow_type(kind: Kind) -> Any:
    """Return the Arrow type of a kind."""
    import pyarrow

    if isinstance(kind, type):
        return _of(kind)
    if kind == "ids":
        return pyarrow.list_(pyarrow.int64())
    if kind not in FIELDS:
        return pyarrow.type_for_alias(kind)
    fields = [(name, pyarrow.type_for_alias(inner)) for name, inner in FIELDS[kind].items()]
    return pyarrow.list_(pyarrow.struct(fields))


def _of(annotation: Any) -> Any:
    """Return the Arrow type of a field of a model; it is nullable anyway, so None in a union adds nothing.

    Raises:
        TypeError: the annotation has no column type, as a mapping with free keys.
    """
    import pyarrow

    if annotation in _PLAIN:
        return pyarrow.type_for_alias(_PLAIN[annotation])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return pyarrow.struct([(name, _of(field.annotation)) for name, field in fields])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of(arguments[0])
    if origin is Literal:
        return _of(type(arguments[0]))
    if origin is list:
        return pyarrow.list_(_of(arguments[0]))
    rest = [argument for argument in arguments if argument is not type(None)]
    if origin in (Union, types.UnionType) and len(rest) == 1:
        return _of(rest[0])
    raise TypeError(f"{annotation} has no column type")
