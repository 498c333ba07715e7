"""The desktop's clipboard: found where there is a desktop, and never waited for without end."""

from pathlib import Path

import pytest

from swarmtui.ui import clipboard


def script(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_program_needs_its_desktop(tmp_path: Path) -> None:
    script(tmp_path, "wl-copy", "cat")
    script(tmp_path, "xsel", "cat")
    path = {"PATH": str(tmp_path)}
    assert clipboard.program(path) is None
    assert clipboard.program({**path, "WAYLAND_DISPLAY": "wayland-0", "DISPLAY": ":0"}) == ["wl-copy"]
    assert clipboard.program({**path, "DISPLAY": ":0"}) == ["xsel", "--clipboard", "--input"]


async def test_the_text_is_handed_over(tmp_path: Path) -> None:
    target = tmp_path / "clipboard"
    assert await clipboard.copy("node2\udc80 ★", [str(script(tmp_path, "copy", f"cat > {target}"))])
    assert target.read_text("utf-8") == "node2? ★"


async def test_a_program_that_fails_or_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not await clipboard.copy("x", [str(script(tmp_path, "fails", "exit 3"))])
    monkeypatch.setattr(clipboard, "SECONDS", 0.2)
    assert not await clipboard.copy("x", [str(script(tmp_path, "hangs", "exec sleep 60"))])
