"""What a key looks like: `bonsai_<id>_<secret>_<checksum>`. The standard library only.

The prefix tells a scanner of secrets whose it is, the id finds its row, and the checksum tells a
typing mistake, or a line that was cut, from a key that is not known, without asking anybody.
"""

import hashlib
import secrets
import string
import zlib
from dataclasses import dataclass, field

PREFIX = "bonsai"

_ALPHABET = string.digits + string.ascii_letters
_ID_LENGTH = 12
_SECRET_LENGTH = 43
"""Of 62 characters each: 256 bits."""
_CHECKSUM_LENGTH = 6
"""Of 62 characters each: more than the 32 bits there are."""


@dataclass(frozen=True, slots=True)
class Token:
    """A key as its owner has it.

    Attributes:
        id: may be shown to anybody.
        secret: is shown once, to who made it; not in this object's text either.
    """

    id: str
    secret: str = field(repr=False)

    @classmethod
    def generate(cls, key_id: str | None = None) -> "Token":
        """A new secret, for a key that exists or for a new one."""
        return cls(key_id or _random(_ID_LENGTH), _random(_SECRET_LENGTH))

    @classmethod
    def parse(cls, text: str) -> "Token | None":
        """The token that a text is; None where it is none, or was mistyped or cut."""
        prefix, *parts = text.split("_")
        if prefix != PREFIX or [len(part) for part in parts] != [
            _ID_LENGTH,
            _SECRET_LENGTH,
            _CHECKSUM_LENGTH,
        ]:
            return None
        token = cls(parts[0], parts[1])
        return token if token.reveal() == text else None

    def reveal(self) -> str:
        """The whole key, secret and all: for who made it, and nobody else."""
        text = f"{PREFIX}_{self.id}_{self.secret}"
        return f"{text}_{_checksum(text)}"

    @property
    def sha256(self) -> str:
        """Of the secret: what is stored. A secret of 256 random bits needs no slower digest."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    rest, digits = zlib.crc32(text.encode(errors="replace")), ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
