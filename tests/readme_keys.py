"""Writes the README's key table anew from the console's registry of actions: `python tests/readme_keys.py`."""

from __future__ import annotations

import re
from pathlib import Path

from swarmtui.ui.actions import key_table

README = Path(__file__).parents[1] / "README.md"
_PART = re.compile(r"(<!-- keys: [^\n]*-->\n).*?(<!-- end of keys -->\n)", re.DOTALL)


def with_keys(text: str) -> str:
    """The README's text with the table as the registry has it now."""
    # A lower heading than the section that they are in.
    table = re.sub(r"^#+ ", "### ", key_table().strip(), flags=re.MULTILINE)
    return _PART.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text)


if __name__ == "__main__":
    README.write_text(with_keys(README.read_text()))
