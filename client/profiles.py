"""Several services by name, each with its address and its key, in one file of the user."""

import os
import re
import stat
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from client.errors import ClientError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Profile:
    """One service. The key is for this URL and no other.

    Args:
        name: letters, digits, `-` and `_`.
        url: http or https.
    """

    name: str
    url: str
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raises ClientError for what no request could be sent with; it never repeats the key."""
        if not re.fullmatch(r"[\w-]{1,64}", self.name, re.ASCII):
            raise ClientError(
                f"a profile's name is 1 to 64 letters, digits, - or _ (got {self.name!r})"
            )
        if not _is_address(self.url):
            raise ClientError(
                f"profile {self.name}: url must be such as https://bonsai.example.org "
                f"(got {self.url!r})"
            )
        if self.key is not None and not re.fullmatch(r"[!-~]{1,255}", self.key):
            raise ClientError(
                f"profile {self.name}: the key is empty, or holds spaces or other characters that "
                "no key has; is it the whole key (bonsai_...), and nothing else?"
            )


@dataclass(slots=True)
class Profiles:
    """All of them, and the name of the one in use."""

    by_name: dict[str, Profile] = field(default_factory=dict)
    in_use: str | None = None

    def named(self, name: str) -> Profile:
        """The profile of a name; ClientError if there is none."""
        if name not in self.by_name:
            known = ", ".join(self.by_name) or "none"
            raise ClientError(
                f"there is no profile {name!r} (there are: {known}); "
                "`bonsai profile add NAME --url URL` adds one"
            )
        return self.by_name[name]


def profiles_file() -> Path:
    """Where they are kept: XDG_CONFIG_HOME, or ~/.config."""
    home = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # The specification has a relative one ignored.
    folder = home if home.is_absolute() else Path.home() / ".config"
    return folder / "bonsai" / "profiles.toml"


def read_profiles(file: Path) -> Profiles:
    """What is in the file; without one, nothing. Raises ClientError if it cannot be read."""
    try:
        content = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return Profiles()
    except (OSError, ValueError) as error:
        # TOML's errors tell a place, and no content.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ClientError(f"the profiles in {file} cannot be read: {reason}") from error
    try:
        profiles = {name: _profile(name, said) for name, said in content["profiles"].items()}
        return Profiles(profiles, content.get("use"))
    except (AttributeError, KeyError, TypeError) as error:
        raise ClientError(
            f"{file} must hold a table [profiles.NAME] with url and key for each profile"
        ) from error


def write_profiles(profiles: Profiles, file: Path) -> None:
    """Write the file as a whole or not at all, for its owner alone."""
    file = file.resolve()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Files of tempfile are open to their owner only, from the first byte on.
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as new:
            new.write(_toml(profiles))
        Path(new.name).replace(file)
    except OSError as error:
        raise ClientError(f"{file} cannot be written: {error.strerror}") from error


def is_open_to_others(file: Path) -> bool:
    """Whether others than its owner may read the file or write to it."""
    return os.name == "posix" and file.exists() and bool(file.stat().st_mode & _OTHERS)


def masked(key: str | None) -> str:
    """A key as it may be shown: enough to tell which it is, nothing of its secret."""
    if key is None:
        return ""
    # A key is `bonsai_`, an id and a secret; another text is shown as nothing at all.
    known = re.match(r"(bonsai_[0-9A-Za-z]{12})_", key)
    return f"{known[1]}_****" if known else "****"


def _profile(name: str, said: dict[str, Any]) -> Profile:
    return Profile(name, said["url"], said.get("key"))


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # A port that is no number raises when it is read.
        said = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(said) and re.fullmatch(r"[!-~]+", url) is not None


def _toml(profiles: Profiles) -> str:
    lines = [] if profiles.in_use is None else [f"use = {_quoted(profiles.in_use)}"]
    for profile in profiles.by_name.values():
        lines += ["", f"[profiles.{profile.name}]", f"url = {_quoted(profile.url)}"]
        lines += [] if profile.key is None else [f"key = {_quoted(profile.key)}"]
    return "\n".join([*lines, ""]) if profiles.by_name else "[profiles]\n"


def _quoted(text: str) -> str:
    """A TOML string of printable ASCII, which is all that names, addresses and keys are."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
