"""Where a passphrase comes from: the terminal, asked twice when it is new, or the first line of a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from swarmtui.operations.base import OperationFailed

OPTION = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, allow_dash=True),
    default=None,
    help="Read the passphrase from the first line of a file; - is standard input.",
)


def passphrase(file: Path | None, *, new: bool) -> str:
    """The passphrase, never empty; OperationFailed says what is missing."""
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OperationFailed(f"the passphrase cannot be read from {file}: {error}") from error
        lines = text.splitlines()
        if not lines or not lines[0]:
            raise OperationFailed(f"the first line of {file} is empty: a passphrase is needed")
        return lines[0]
    if not sys.stdin.isatty():
        raise OperationFailed("there is no terminal to ask for the passphrase; use --passphrase-file")
    asked: str = click.prompt("Passphrase of the backup", hide_input=True, confirmation_prompt=new, err=True)
    return asked
