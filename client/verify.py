"""`bonsai verify`: whether a result is what its manifest says, found out in this process."""

from dataclasses import asdict
from pathlib import Path

from bonsai_core.errors import PruneError
from bonsai_core.verification import verify
from client.console import print_json, results
from client.errors import ClientError
from client.exit_codes import ExitCode


def run_verify(folder: Path, *, device: str, as_json: bool) -> ExitCode:
    """Verify and print each check; FAILED if one of them did not hold."""
    try:
        checks = verify(folder.expanduser(), device)
    except PruneError as error:
        raise ClientError(str(error)) from error
    true = all(check.holds for check in checks)
    if as_json:
        print_json({"true": true, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            verdict = "ok  " if check.holds else "FALSE"
            told = f"{check.found}" if check.holds else f"{check.found}, said: {check.said}"
            results().print(f"{verdict:<6}{check.name:<32}{told}", soft_wrap=True)
    return ExitCode.DONE if true else ExitCode.FAILED
