"""The commands about several services: `bonsai profile ...`."""

import sys
from typing import Annotated, Any

import typer

from client import options
from client.console import messages, print_json, results
from client.profiles import (
    Profile,
    Profiles,
    is_open_to_others,
    masked,
    profiles_file,
    read_profiles,
    write_profiles,
)
from client.tables import profiles_table

app = typer.Typer(
    no_args_is_help=True, help="Name the services that you use, each with its address and key."
)


def known_names(incomplete: str) -> list[str]:
    """For completion."""
    names = read_profiles(profiles_file()).by_name
    return [name for name in names if name.startswith(incomplete)]


NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The profile's name.", autocompletion=known_names),
]


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, - and _.")],
    url: Annotated[str, typer.Option(help="Address of the service.")],
    key_stdin: Annotated[
        bool,
        typer.Option(
            "--key-stdin",
            help="Read the key from standard input (default: you are asked for it). There is no "
            "option for the key itself: whoever is on this machine could read it.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Keep an address and its key under a name, or change them; the first profile is used at once.

    The key is not shown while you type it; an empty one means that the service needs none.
    """
    file = profiles_file()
    profiles = read_profiles(file)
    profiles.by_name[name] = Profile(name, url.rstrip("/"), _asked(from_stdin=key_stdin))
    profiles.in_use = profiles.in_use or name
    write_profiles(profiles, file)
    _print(profiles, as_json=json)


@app.command("list")
def list_profiles(json: options.Json = False) -> None:
    """List the profiles, keys masked."""
    file = profiles_file()
    profiles = read_profiles(file)
    if is_open_to_others(file):
        messages().print(f"others may read {file}: chmod 600 {file}", soft_wrap=True)
    _print(profiles, as_json=json)


@app.command()
def use(name: NameArgument, json: options.Json = False) -> None:
    """Use a profile where neither an option nor the environment names another service."""
    file = profiles_file()
    profiles = read_profiles(file)
    profiles.in_use = profiles.named(name).name
    write_profiles(profiles, file)
    _print(profiles, as_json=json)


@app.command()
def remove(name: NameArgument, json: options.Json = False) -> None:
    """Forget a profile with its key."""
    file = profiles_file()
    profiles = read_profiles(file)
    del profiles.by_name[profiles.named(name).name]
    if profiles.in_use == name:
        profiles.in_use = None
    write_profiles(profiles, file)
    _print(profiles, as_json=json)


def _asked(*, from_stdin: bool) -> str | None:
    """The key, which nothing echoes."""
    if from_stdin:
        return sys.stdin.read().strip() or None
    typed: str = typer.prompt("API key", default="", show_default=False, hide_input=True, err=True)
    return typed.strip() or None


def _print(profiles: Profiles, *, as_json: bool) -> None:
    if as_json:
        print_json([_shown(profile, profiles) for profile in profiles.by_name.values()])
    else:
        results().print(profiles_table(profiles) if profiles.by_name else "no profiles")


def _shown(profile: Profile, profiles: Profiles) -> dict[str, Any]:
    return {
        "name": profile.name,
        "url": profile.url,
        "key": masked(profile.key) or None,
        "in_use": profile.name == profiles.in_use,
    }
