"""The `bonsai` command."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from client import (
    batch_commands,
    dataset_commands,
    edit_commands,
    job_commands,
    key_commands,
    local_commands,
    log_commands,
    profile_commands,
    queue_commands,
    retention_commands,
    status_command,
    webhook_commands,
    worker_commands,
)
from client.address import DEFAULT_URL
from client.connection import Connection
from client.console import messages
from client.errors import ClientError
from client.exit_codes import ExitCode


class Commands(TyperGroup):
    """Shows our errors to people: a message on standard error, exit code 1, no trace."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ClientError as error:
            messages().print(f"bonsai: {error}", style="red", soft_wrap=True)
            raise typer.Exit(ExitCode.FAILED) from error


app = typer.Typer(
    name="bonsai",
    cls=Commands,
    no_args_is_help=True,
    help="Make large language models smaller, by forward passes only.",
    # The default traces show local variables, which may be secrets.
    pretty_exceptions_enable=False,
)


@app.callback()
def configure(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(envvar="BONSAI_URL", help=f"Address of the service (default {DEFAULT_URL})"),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="BONSAI_PROFILE",
            autocompletion=profile_commands.known_names,
            help="The service of a profile, with its key (default: the one in use, if any is; see "
            "`bonsai profile`)",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="BONSAI_KEY_FILE",
            help="File that holds your API key (default: the environment's BONSAI_API_KEY). There "
            "is no option for the key itself: whoever is on this machine could read it.",
        ),
    ] = None,
) -> None:
    """Take what all commands share."""
    said = frozenset(name for name in context.params if _is_option(context, name))
    if {"url", "profile"} <= said:
        raise typer.BadParameter("--url and --profile both name a service; say one of them")
    context.obj = Connection(
        # An option comes before the environment.
        url=None if "profile" in said else url or None,
        key_file=key_file,
        profile=profile or None,
        said=said,
    )


def _is_option(context: typer.Context, name: str) -> bool:
    """Whether it was said on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


app.command("up")(local_commands.up)
app.command("submit")(job_commands.submit)
app.command("validate")(job_commands.validate)
app.command("list")(job_commands.list_jobs)
app.command("show")(job_commands.show)
app.command("watch")(job_commands.watch)
app.command("wait")(job_commands.wait)
app.command("rounds")(edit_commands.rounds)
app.command("edit")(edit_commands.edit)
app.command("queue")(queue_commands.queue)
app.command("models")(queue_commands.models)
app.command("logs")(log_commands.logs)
app.command("pause")(job_commands.pause)
app.command("resume")(job_commands.resume)
app.command("cancel")(job_commands.cancel)
app.command("retry")(job_commands.retry)
app.command("attempts")(job_commands.list_attempts)
app.command("status")(status_command.status)
app.add_typer(batch_commands.app, name="batch")
app.add_typer(dataset_commands.app, name="datasets")
app.add_typer(webhook_commands.app, name="webhooks")
app.add_typer(worker_commands.app, name="worker")
app.add_typer(key_commands.app, name="keys")
app.add_typer(profile_commands.app, name="profile")
app.command("whoami")(key_commands.whoami)
app.command("pin")(retention_commands.pin)
app.command("unpin")(retention_commands.unpin)
app.command("gc")(retention_commands.collect)
app.command("download")(job_commands.download)
app.command("prune")(local_commands.prune)
app.command("evaluate")(local_commands.evaluate)
app.command("compare")(local_commands.compare)
app.command("export")(local_commands.export)
app.command("verify")(local_commands.verify)
app.command("push")(local_commands.push)


def main() -> None:
    """The entry point."""
    app()
