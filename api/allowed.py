"""What a field of a request's body accepts, in words, from the JSON schema of the body."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

Schema = Mapping[str, Any]

KEY = "[key]"
"""Pydantic's mark, at the end of a path, that a key is at fault rather than its value."""

_BOUNDS = {
    "exclusiveMinimum": "above {}",
    "minimum": "at least {}",
    "exclusiveMaximum": "below {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "maxProperties": "at most {} of them",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "pattern": "matching {}",
}
_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}


def allowed_at(path: Sequence[str | int], body: type[BaseModel]) -> str | None:
    """What is accepted at a path of a body; for an unknown field, the fields there are.

    A path that ends in `KEY` means the name of the field before it.
    """
    about_name = path[-1:] == [KEY]
    root = _schema_of(body)
    node = _resolved(root, root)
    for step in path[:-2] if about_name else path:
        inner = _inner(node, step, root)
        if not inner:
            fields = node.get("properties")
            return f"the fields {', '.join(fields)}" if fields else None
        node = _resolved(inner, root)
    return _in_words(_name(node) if about_name else node, root)


def _inner(node: Schema, step: str | int, root: Schema) -> Schema | None:
    """The schema one step further down; None where there is no such step."""
    for choice in node.get("anyOf", [node]):
        option = _resolved(choice, root)
        inner: Schema | None
        if isinstance(step, int):
            inner = option.get("items")
        else:
            inner = option.get("properties", {}).get(step) or _of_any_name(option)
        if inner:
            return inner
    return None


def _of_any_name(node: Schema) -> Schema | None:
    return next(iter(node.get("patternProperties", {}).values()), None)


def _name(node: Schema) -> Schema:
    """The schema of the names of an object's fields."""
    patterns = " or ".join(node.get("patternProperties", {}))
    return {"type": "string", "pattern": patterns, **node.get("propertyNames", {})}


@cache
def _schema_of(body: type[BaseModel]) -> Schema:
    return body.model_json_schema()


def _resolved(node: Schema, root: Schema) -> Schema:
    while "$ref" in node:
        node = root["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _in_words(node: Schema, root: Schema) -> str:
    if "anyOf" in node:
        return ", or ".join(_in_words(_resolved(option, root), root) for option in node["anyOf"])
    if "enum" in node:
        return ", ".join(str(value) for value in node["enum"])
    words = [_TYPES.get(node.get("type", ""), "any value")]
    if node.get("items"):
        words.append(f"each of them {_in_words(_resolved(node['items'], root), root)}")
    if node.get("properties"):
        words.append(f"with the fields {', '.join(node['properties'])}")
    words += [words_of.format(node[key]) for key, words_of in _BOUNDS.items() if key in node]
    return ", ".join(words)
