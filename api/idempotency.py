"""The header by which a client names a submission, so that it may make it again."""

import re
from typing import Annotated, Any

from fastapi import Header
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from jobs.idempotency import FORGOTTEN_AFTER

REPLAYED = "Idempotency-Replayed"
REPLAYED_HEADER: dict[str, Any] = {
    "description": "`true` where an earlier request with the same `Idempotency-Key` has made it.",
    "schema": {"type": "string", "enum": ["true"]},
}

_PATTERN = r"^[!-~]{1,255}$"
_ALLOWED = "1 to 255 visible ASCII characters"


def _checked(key: str) -> str:
    if not re.fullmatch(_PATTERN, key):
        raise PydanticCustomError("idempotency_key", "must be {expected}", {"expected": _ALLOWED})
    return key


IdempotencyKey = Annotated[
    Annotated[str, AfterValidator(_checked)] | None,
    Header(
        alias="Idempotency-Key",
        description="A name of this submission, such as a UUID. The same request with the same key "
        "is answered with what the first one has made; another request is refused. "
        f"{_ALLOWED}; known for {FORGOTTEN_AFTER.days} days.",
        json_schema_extra={"pattern": _PATTERN},
    ),
]
