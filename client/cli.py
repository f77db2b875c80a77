"""The `bonsai` command."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from client import job_commands, local_commands
from client.console import messages
from client.errors import ClientError
from client.service import DEFAULT_URL


class Commands(TyperGroup):
    """Shows our errors to people: a message on standard error, exit code 1, no trace."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ClientError as error:
            messages().print(f"bonsai: {error}", style="red", soft_wrap=True)
            raise typer.Exit(1) from error


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
        typer.Option(envvar="BONSAI_URL", help=f"Address of the service [default: {DEFAULT_URL}]"),
    ] = None,
) -> None:
    """Take what all commands share."""
    context.obj = url


for _name, _command in {
    "up": local_commands.up,
    "submit": job_commands.submit,
    "list": job_commands.list_jobs,
    "show": job_commands.show,
    "watch": job_commands.watch,
    "cancel": job_commands.cancel,
    "download": job_commands.download,
    "prune": local_commands.prune,
    "evaluate": local_commands.evaluate,
}.items():
    app.command(_name)(_command)


def main() -> None:
    """The entry point."""
    app()
