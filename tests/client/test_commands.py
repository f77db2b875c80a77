"""What all commands have in common."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from typer.core import TyperGroup
from typer.main import get_command

from client.cli import app
from client.profiles import Profile, Profiles, write_profiles

WITHOUT_JSON = {
    "up": "runs servers until it is stopped; what it prints is their logs",
    "datasets delete": "prints nothing, and what it has removed is not there any more",
    "webhooks delete": "the same",
}

COMPLETE = """
source "$HOME/.bash_completions/bonsai.sh"
COMP_WORDS=(bonsai "$@"); COMP_CWORD=$#; _bonsai_completion bonsai; echo "${COMPREPLY[@]}"
"""


def commands(group: object, *path: str) -> Iterator[tuple[str, set[str]]]:
    """The path and the options of each command that is no group of others."""
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *path, name)
        else:
            options = {option for parameter in command.params for option in parameter.opts}
            yield " ".join([*path, name]), options


def bash(home: Path, script: str, *words: str) -> str:
    """What a script says, run by a shell that finds the command as users have it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "PATH": path}
    command = ["bash", "-c", script, "bash", *words]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


def test_every_command_that_prints_can_print_json() -> None:
    found = dict(commands(get_command(app)))
    assert {"watch", "wait", "logs", "prune", "keys generate", "profile list"} <= set(found)
    assert {path for path, options in found.items() if "--json" not in options} == set(WITHOUT_JSON)


def test_no_command_takes_a_secret_as_an_option() -> None:
    for path, options in commands(get_command(app)):
        secret = {"--key", "--api-key", "--secret", "--password", "--token"}
        assert not options & secret, path


def test_a_shell_completes_commands_options_states_and_profiles(tmp_path: Path) -> None:
    # Typer asks which shell it was started by.
    assert "_bonsai_completion" in bash(tmp_path, "bonsai --show-completion; true")
    bash(tmp_path, "bonsai --install-completion; true")
    lab = Profile("lab", "http://lab:8000")
    write_profiles(Profiles({"lab": lab}), tmp_path / "bonsai" / "profiles.toml")
    for words, completed in (
        (("wa",), "watch wait"),
        (("keys", "ro"), "rotate"),
        (("wait", "--ti"), "--timeout"),
        (("list", "--state", "pau"), "pausing paused"),
        (("profile", "use", ""), "lab"),
        (("--profile", "l"), "lab"),
    ):
        assert sorted(bash(tmp_path, COMPLETE, *words).split()) == sorted(completed.split()), words
