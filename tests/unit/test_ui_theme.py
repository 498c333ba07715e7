"""Themes: the same to a YAML library, readable by contrast, found in the tree and beside the package."""

import shutil
from pathlib import Path

import pytest
import yaml
from textual.color import Color

from swarmtui.ui import theme as themes

FILES = sorted(themes.folder().glob("*.yaml"))
TEXTS = [
    "foreground",
    "text-muted",
    *(f"text-{t}" for t in ("primary", "accent", "secondary", "success", "warning", "error")),
]
REPLICAS = [f"replica-{number}" for number in range(1, 9)]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.1 defines it."""

    def linear(channel: int) -> float:
        value = channel / 255
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    red, green, blue = Color.parse(colour).rgb
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)


def test_a_dark_and_a_light_theme_are_shipped() -> None:
    assert {themes.load(path).dark for path in FILES} == {True, False}
    assert themes.DEFAULT_DARK in themes.available()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_reader_and_a_yaml_library_agree(path: Path) -> None:
    text = path.read_text("utf-8")
    assert themes.parse(text, path.name) == yaml.safe_load(text)
    assert themes.load(path).name == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_is_readable_on_every_ground(path: Path) -> None:
    values = {key: str(value) for key, value in themes.parse(path.read_text("utf-8"), path.name).items()}

    def contrast(text: str, ground: str) -> float:
        high, low = sorted((luminance(values[text]), luminance(values[ground])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    grounds = ["background", "surface", "panel", "block-cursor-background", "block-cursor-blurred-background"]
    weak = {
        (text, ground): round(contrast(text, ground), 2)
        for text in TEXTS
        for ground in grounds
        if contrast(text, ground) < 4.5  # WCAG 2.1, level AA
    }
    weak |= {
        (text, "background"): contrast(text, "background") for text in REPLICAS if contrast(text, "background") < 4.5
    }
    weak |= {
        pair: contrast(*pair)
        for pair in [("match-current-foreground", "match-current-background"), ("foreground", "match-background")]
        if contrast(*pair) < 4.5
    }
    assert weak == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tones_and_replicas_differ_from_each_other(path: Path) -> None:
    values = themes.parse(path.read_text("utf-8"), path.name)
    tones = [values[f"text-{tone}"] for tone in ("secondary", "success", "warning", "error", "muted")]
    assert len(set(tones)) == len(tones)
    assert len({values[name] for name in REPLICAS}) == 8
    assert not {values[name] for name in REPLICAS} & {values["text-error"], values["text-warning"]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: x\nprimary\n", "x.yaml, line 2"),
        ("name: x\nname: y\n", "set twice"),
        ("name: x\n  nested: y\n", "line 2"),
        ("primary: '#fff'\n", "name is missing"),
        ("name: x\nprimary: mauve-ish\n", "primary is not a colour"),
    ],
)
def test_a_bad_theme_says_what_is_wrong_and_where(text: str, says: str) -> None:
    with pytest.raises(themes.BadTheme, match=says):
        themes.theme_of(themes.parse(text, "x.yaml"), "x.yaml")


def test_an_unknown_theme_names_the_known_ones() -> None:
    with pytest.raises(themes.BadTheme, match="harbour-dark, harbour-light"):
        themes.ThemedApp("nothing")


def test_the_folder_beside_the_package_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "site" / "swarmtui" / "ui" / "theme.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr(themes, "__file__", str(module))
    assert themes.folder() == tmp_path / "site" / "themes"
    installed = tmp_path / "site" / "swarmtui" / "themes"
    installed.mkdir()
    shutil.copy(FILES[0], installed)
    assert themes.folder() == installed
    assert themes.available() == {FILES[0].stem: installed / FILES[0].name}
