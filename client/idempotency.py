"""The key that a submission is sent with, so that it may be sent again."""

import re
from uuid import uuid4

from client.errors import ClientError


def key_header(key: str | None) -> dict[str, str]:
    """The header of a key; of a fresh one if none is given."""
    if key is None:
        key = str(uuid4())
    # Not left to the service: another key may not even come over as it is.
    if not re.fullmatch(r"[!-~]{1,255}", key):
        raise ClientError(
            f"idempotency key: got {key!r}; give 1 to 255 visible ASCII characters without spaces, "
            "such as nightly-2026-12-01, or none for a fresh one"
        )
    return {"Idempotency-Key": key}
