"""How commands reach the service."""

import os
from dataclasses import dataclass
from pathlib import Path

import typer

from client.console import messages
from client.keys import read_key
from client.profiles import Profile, is_open_to_others, profiles_file, read_profiles
from client.service import BonsaiClient


@dataclass(frozen=True, slots=True)
class Connection:
    """What all commands share: where the service is, and where the key lies.

    Args:
        url: from an option or the environment; no profile's key is ever sent there.
        key_file: from an option or the environment.
        profile: name of the profile that was asked for.
        said: names of those that are options, which come before the environment.
    """

    url: str | None
    key_file: Path | None
    profile: str | None = None
    said: frozenset[str] = frozenset()

    def open(self) -> BonsaiClient:
        """A client of the service."""
        profile = _profile(self.profile) if self.url is None else None
        url = self.url if profile is None else profile.url
        return BonsaiClient(url, api_key=self._key(profile))

    def _key(self, profile: Profile | None) -> str | None:
        """None: the environment's, if there is one."""
        of_environment = self.key_file is not None or bool(os.environ.get("BONSAI_API_KEY"))
        wished = "profile" in self.said and "key_file" not in self.said
        if profile is not None and profile.key and (wished or not of_environment):
            return profile.key
        return None if self.key_file is None else read_key(self.key_file)


def connect(context: typer.Context) -> BonsaiClient:
    """The client that a command uses."""
    connection: Connection = context.obj
    return connection.open()


def _profile(name: str | None) -> Profile | None:
    """The one of a name, or the one in use, if any is."""
    file = profiles_file()
    profiles = read_profiles(file)
    if is_open_to_others(file):
        messages().print(
            f"bonsai: others may read {file}, and the keys in it: chmod 600 {file}",
            style="yellow",
            soft_wrap=True,
        )
    name = name or profiles.in_use
    return None if name is None else profiles.named(name)
