"""Moments in requests: RFC 3339, with their zone. A number is no moment, as nobody can see whether
it counts seconds or milliseconds."""

import re
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")


def _said(value: object) -> object:
    if isinstance(value, int | float) or (isinstance(value, str) and not _DAY.match(value)):
        raise ValueError("must be a time as in RFC 3339, such as 2026-12-01T22:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_said)]
