"""What all commands have in common."""

from collections.abc import Iterator

from typer.core import TyperGroup
from typer.main import get_command

from client.cli import app

WITHOUT_JSON = {
    "up": "runs servers until it is stopped; what it prints is their logs",
    "webhooks delete": "prints nothing, and what it has removed is not there any more",
}


def commands(group: object, *path: str) -> Iterator[tuple[str, set[str]]]:
    """The path and the options of each command that is no group of others."""
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *path, name)
        else:
            options = {option for parameter in command.params for option in parameter.opts}
            yield " ".join([*path, name]), options


def test_every_command_that_prints_can_print_json() -> None:
    found = dict(commands(get_command(app)))
    assert {"watch", "wait", "logs", "prune", "keys generate", "profile list"} <= set(found)
    assert {path for path, options in found.items() if "--json" not in options} == set(WITHOUT_JSON)


def test_no_command_takes_a_secret_as_an_option() -> None:
    for path, options in commands(get_command(app)):
        secret = {"--key", "--api-key", "--secret", "--password", "--token"}
        assert not options & secret, path
