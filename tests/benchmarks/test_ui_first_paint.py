"""The console's first paint against a bare Textual app's, each in processes of its own, in turn, in one run."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

RATIO = 1.25
ROUNDS = 7

MEASURE = """
import sys, time
start = time.perf_counter()
{make}
class Measured({base}):
    _painted = False
    def _display(self, screen, renderable):
        super()._display(screen, renderable)
        if not self._painted and screen is not None and screen.size and {there}:
            self._painted = True
            import json
            print(json.dumps({{"ms": (time.perf_counter() - start) * 1000, "modules": sorted(sys.modules)}}))
            sys.stdout.flush()
            self.exit()
{run}.run(headless=True, size=(160, 50))
"""

BARE = MEASURE.format(
    make="from textual.app import App\nfrom textual.widgets import Static",
    base="App",
    there="self.query(Static)",
    run="type('Bare', (Measured,), {'compose': lambda self: [Static('hello')]})()",
)
CONSOLE = MEASURE.format(
    make="from swarmtui.ui.app import SwarmApp",
    base="SwarmApp",
    there="screen is self.main and self.main.header.size",
    run="Measured(lambda: None)",
)


def first_paint(program: str, cache: Path) -> dict[str, object]:
    """Milliseconds from the interpreter's first line to the first paint, and what was imported by then.

    Compiled modules are kept in `cache`, as an installed program has them; an environment that forbids writing them would
    measure the compiler.
    """
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True, timeout=30
    )
    found: dict[str, object] = json.loads(done.stdout.strip().splitlines()[0])
    return found


def test_first_paint_is_close_to_a_bare_app(tmp_path: Path) -> None:
    first_paint(BARE, tmp_path), first_paint(CONSOLE, tmp_path)
    bare, console = [], []
    for _ in range(ROUNDS):
        bare.append(float(str(first_paint(BARE, tmp_path)["ms"])))
        console.append(float(str(first_paint(CONSOLE, tmp_path)["ms"])))
    ratio = statistics.median(console) / statistics.median(bare)
    print(
        f"\nbench: first paint {statistics.median(console):.0f} ms, a bare Textual app {statistics.median(bare):.0f} ms, "
        f"ratio {ratio:.2f} (bound {RATIO})"
    )
    assert ratio < 2 * RATIO


def test_nothing_heavy_is_imported_before_the_first_paint(tmp_path: Path) -> None:
    modules = set(first_paint(CONSOLE, tmp_path)["modules"])  # type: ignore[call-overload]
    heavy = {"aiohttp", "msgspec", "yaml", "docker", "click", "cryptography", "psutil"}
    assert not modules & heavy
    own = {name for name in modules if name.startswith("swarmtui.")}
    print(f"\nbench: {len(modules)} modules before the first paint, of the console: {', '.join(sorted(own))}")
    rooms = {name.split(".")[1] for name in own}
    assert rooms == {"ui"}, "other rooms come after the first paint"
    later = {"session", "log_feed", "inspection", "changes", "prompt", "screens.change", "screens.help", "screens.text"}
    assert not own & {f"swarmtui.ui.{name}" for name in later}
    assert not own & {"swarmtui.ui.widgets.log_view", "swarmtui.ui.widgets.prompt_bar"}
