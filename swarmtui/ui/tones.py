"""Tones as styles of text in dialogs and panels."""

from __future__ import annotations

from swarmtui.ui.glyphs import Tone

STYLES = {
    Tone.GOOD: "$text-success",
    Tone.BUSY: "$text-secondary",
    Tone.WAITING: "$text-warning",
    Tone.BAD: "$text-error",
    Tone.WARNING: "$text-warning",
    Tone.MUTED: "$text-muted",
}
"""A tone to the theme's variable; what is not here is plain."""
