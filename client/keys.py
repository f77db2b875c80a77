"""The API key that requests are sent with; no message ever repeats it."""

import re
from pathlib import Path

from client.errors import ClientError


def bearer(key: str | None) -> dict[str, str]:
    """The header of a key, if there is one."""
    if not key:
        return {}
    # Another text may not come over as it is, or would bring headers of its own.
    if not re.fullmatch(r"[!-~]{1,255}", key):
        raise ClientError(
            "the API key holds spaces, line breaks or other characters that no key has; is it the "
            "whole key (bonsai_...), and nothing else?"
        )
    return {"Authorization": f"Bearer {key}"}


def read_key(file: Path) -> str:
    """The key in a file, which holds nothing else."""
    try:
        return file.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ClientError(f"the key file {file} cannot be read: {reason}") from error
