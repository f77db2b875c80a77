"""The commands about API keys: `bonsai keys ...`, and `bonsai whoami`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from client import options
from client.connection import connect
from client.console import messages, print_json, results
from client.responses import NewKey
from client.tables import keys_table

app = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys.")

KeyArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The key's id, as `bonsai keys list` shows it.")
]


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for people.")],
    role: Annotated[str, typer.Option(help="viewer, submitter, operator or admin.")],
    owner: Annotated[str, typer.Option(help="The team it belongs to.")] = "default",
    expires_days: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="When it ends (default never).")
    ] = None,
    json: options.Json = False,
) -> None:
    """Make a key, and print it: it is not shown again. The first one must be an admin's."""
    expiry = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    with connect(context) as client:
        _print(client.create_key(name, role, owner=owner, expires_at=expiry), as_json=json)


@app.command("list")
def list_keys(context: typer.Context, json: options.Json = False) -> None:
    """List all keys, newest first, those that have ended too."""
    with connect(context) as client:
        keys = client.keys()
    if json:
        print_json([key.model_dump(mode="json") for key in keys])
    else:
        results().print(keys_table(keys) if keys else "no keys")


@app.command()
def rotate(
    context: typer.Context,
    key: KeyArgument,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="How long the text that it had stays valid; 0: not at all.")
    ] = 24,
    json: options.Json = False,
) -> None:
    """Give a key another text, and print it: it is not shown again."""
    with connect(context) as client:
        _print(client.rotate_key(key, grace_seconds=round(grace_hours * 3600)), as_json=json)


@app.command()
def revoke(context: typer.Context, key: KeyArgument, json: options.Json = False) -> None:
    """End a key at once."""
    with connect(context) as client:
        revoked = client.revoke_key(key)
    if json:
        print_json(revoked.model_dump(mode="json"))


@app.command()
def generate(json: options.Json = False) -> None:
    """Print a new key for BONSAI_ADMIN_KEY; no service is asked, and none knows it."""
    from jobs.tokens import Token  # noqa: PLC0415 - what keys look like is the service's to say

    key = Token.generate().reveal()
    if json:
        print_json({"key": key})
    else:
        results().print(key, soft_wrap=True)


def whoami(context: typer.Context, json: options.Json = False) -> None:
    """Show whom the service takes you for."""
    with connect(context) as client:
        me = client.me()
    if json:
        print_json(me.model_dump(mode="json"))
        return
    key = f"key {me.key_id} ({me.key_name})" if me.key_id else "no key: none is needed yet"
    sees = "sees all owners" if me.sees_all_owners else "sees its own jobs"
    results().print(f"{me.role} of {me.owner}, {key}, {sees}", soft_wrap=True)


def _print(key: NewKey, *, as_json: bool) -> None:
    if as_json:
        print_json(key.model_dump(mode="json"))
        return
    results().print(key.key, soft_wrap=True)
    messages().print(
        f"key {key.id}: keep it now, it is not shown again; use it as BONSAI_API_KEY, or in a file "
        "with --key-file"
    )
