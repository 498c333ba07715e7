"""Colour themes as data files: `themes/*.yaml` of the wheel or the source tree, and a person's own.

The files are the flat part of YAML (`key: value` a line), read here in a few lines: a theme is needed for the first paint,
and a YAML library takes longer to import than the paint does. A test proves that both read the same.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from textual.app import App
from textual.theme import Theme

_LINE = re.compile(r"""^(?P<key>[A-Za-z][\w-]*):[ ]+(?P<value>"[^"]*"|'[^']*'|[^"'\s#][^#]*?)\s*(?:\s#.*)?$""")
_FIELDS = frozenset(field.name for field in fields(Theme)) - {"variables"}

DEFAULT_DARK = "harbour-dark"
"""The theme unless another is asked for."""

VARIABLES = {
    **{f"replica-{number}": "ansi_cyan" if number % 2 else "ansi_magenta" for number in range(1, 9)},
    "production": "ansi_red",
    "match-background": "ansi_yellow",
    "match-current-background": "ansi_bright_yellow",
    "match-current-foreground": "ansi_black",
}
"""Our own style variables under a theme that lacks them (Textual's own themes)."""


class BadTheme(ValueError):
    """A theme file that cannot be used; the text names file, line and key."""


def folder() -> Path:
    """Where the shipped themes are: beside the package in a wheel, at the root of a source tree."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "themes"
    return installed if installed.is_dir() else package.parent / "themes"


def personal_folder() -> Path:
    """Where a person's own themes are."""
    return Path.home() / ".config" / "swarmtui" / "themes"


def parse(text: str, name: str) -> dict[str, str | bool]:
    """The flat YAML of a theme as a dict; BadTheme names `name` and the line."""
    values: dict[str, str | bool] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.match(line)
        if found is None:
            raise BadTheme(f"{name}, line {number}: not a `key: value` line: {line.strip()!r}")
        value = found["value"]
        if found["key"] in values:
            raise BadTheme(f"{name}, line {number}: {found['key']} is set twice")
        if value in ("true", "false"):
            values[found["key"]] = value == "true"
        else:
            values[found["key"]] = value[1:-1] if value[0] in "\"'" else value
    return values


def theme_of(values: dict[str, str | bool], name: str) -> Theme:
    """A Textual theme; BadTheme when a colour is not one or a base key is missing."""
    from textual.color import Color, ColorParseError

    for key in ("name", "primary"):
        if not isinstance(values.get(key), str):
            raise BadTheme(f"{name}: {key} is missing")
    base: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, str) and key != "name" and not key.endswith("-style"):
            try:
                Color.parse(value)
            except ColorParseError as error:
                raise BadTheme(f"{name}: {key} is not a colour: {value!r}") from error
        if key in _FIELDS:
            base[key] = value
        else:
            variables[key] = str(value)
    return Theme(variables=variables, **base)


def load(path: Path) -> Theme:
    """Reads one theme file."""
    return theme_of(parse(path.read_text("utf-8"), path.name), path.name)


def available() -> dict[str, Path]:
    """Every theme file by its name without `.yaml`; a person's own goes before a shipped one."""
    return {path.stem: path for place in (folder(), personal_folder()) for path in sorted(place.glob("*.yaml"))}


class ThemedApp(App[None]):
    """An app that wears our themes. One is read at the start, the others when a person asks for them."""

    def __init__(self, theme: str | None = None) -> None:
        super().__init__()
        self._wear(theme or DEFAULT_DARK)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Variables for themes that do not set them."""
        return VARIABLES

    def get_theme(self, theme_name: str) -> Theme | None:
        """One look-up: Textual asks for the theme with every line that is drawn."""
        return self._registered_themes.get(theme_name) or super().get_theme(theme_name)

    def _wear(self, name: str) -> None:
        if name not in self._registered_themes:
            paths = available()
            if name not in paths:
                known = ", ".join(sorted(paths))
                raise BadTheme(f"no theme {name!r}; there are {known}")
            self.register_theme(load(paths[name]))
        self.theme = name

    def wear(self, name: str = "") -> str:
        """Changes to the theme `name`, or to the next one; returns its name. BadTheme when there is none."""
        if not name:
            names = sorted(available())
            position = names.index(self.theme) if self.theme in names else -1
            name = names[(position + 1) % len(names)]
        self._wear(name)
        return name
