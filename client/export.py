"""`bonsai export`: a model in the format of another program, written in this process."""

from dataclasses import asdict
from pathlib import Path

from bonsai_core.errors import PruneError
from bonsai_core.formats.exporter import export
from bonsai_core.formats.names import Format
from client.console import print_json, results
from client.errors import ClientError


def run_export(
    folder: Path,
    kind: str,
    output: Path | None,
    *,
    tokenizer_from: Path | None,
    as_json: bool,
) -> None:
    """Export and print where it lies."""
    try:
        exported = export(
            folder.expanduser(),
            Format(kind),
            output and output.expanduser(),
            tokenizer_from=tokenizer_from and tokenizer_from.expanduser(),
        )
    except PruneError as error:
        raise ClientError(str(error)) from error
    if as_json:
        print_json(asdict(exported))
    else:
        results().print(f"{exported.path} ({exported.bytes:,} bytes)", soft_wrap=True)
