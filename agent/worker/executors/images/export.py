"""The shipped images for a real Docker Engine, made of this machine's own Python: no registry, no network.

One root folder serves all: the interpreter, the libraries that `ldd` names, the modules of the standard library that the
programs load (they are asked), and the programs. Everything keeps its path, as interpreters and loaders look for their parts
by it. Images differ in their settings only, so an engine stores one layer.

    python -m agent.worker.executors.images.export OUT.tar            # for `docker load`: all images at once
    python -m agent.worker.executors.images.export --rootfs OUT.tar   # for `docker import`, with `import_changes`
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.api_types.times import SECOND, format_time
from agent.worker.executors.images import catalog, programs
from agent.worker.executors.images.catalog import CREATED, IMAGES, Image

FLAGS = ("-S", "-E", "-s", "-B")
_HOME = "/opt/swarmtui"
_MAIN = f"{_HOME}/agent/worker/executors/images/programs/__main__.py"
_PACKAGES = ("agent", "agent/worker", "agent/worker/executors", "agent/worker/executors/images")
_FOLDERS = (("tmp", 0o1777), ("etc", 0o755), ("root", 0o700), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755))
_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/\nnobody:x:65534:65534::/:/\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)$")
_LIST_MODULES = """
import sys
sys.path[0] = {home!r}
from agent.worker.executors.images.programs import fail, logger, sites
for module in list(sys.modules.values()):
    file = getattr(module, "__file__", None)
    if file and not module.__name__.startswith("agent"):
        print(file)
"""


class CannotExport(Exception):
    """This machine lacks something that an image needs; the text says what."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the root folder is made of: files of this machine by the path that they keep."""

    interpreter: str
    files: Mapping[str, Path]


def exported() -> list[Image]:
    """The images that can be exported: ours. A stand-in must not take the real image's name in an engine."""
    return [image for image in IMAGES if not image.stand_in]


def find_parts() -> Parts:
    """Interpreter, libraries and modules. CannotExport when a library is missing or the machine has no `ldd`."""
    interpreter = os.path.realpath(sys.executable)
    home = next(parent for parent in Path(programs.__file__).parents if parent.name == "agent").parent
    listing = _run([interpreter, *FLAGS, "-c", _LIST_MODULES.format(home=str(home))])
    modules = [Path(line) for line in listing.splitlines()]
    # os.py is the landmark by which the interpreter finds its library, lib-dynload that of its compiled part.
    modules.append(Path(sysconfig.get_path("stdlib")) / "os.py")
    binaries = [Path(interpreter), *(path for path in modules if path.suffix == ".so")]
    found = {str(path): path for path in (*binaries, *modules)}
    for binary in binaries:
        found |= {library: Path(library) for library in libraries(_run(["ldd", str(binary)]))}
    return Parts(interpreter, found)


def libraries(listing: str) -> list[str]:
    """Paths of libraries and loader in the output of ldd. CannotExport names one that is missing."""
    found = []
    for line in listing.splitlines():
        if "not found" in line:
            raise CannotExport(f"a library of this Python is missing: {line.strip()}")
        match = _LIBRARY.search(line.strip())
        if match:
            found.append(match[1])
    return found


def rootfs(parts: Parts) -> bytes:
    """The root folder as a tar, always the same for the same machine."""
    package = Path(programs.__file__).parent
    content = {name.lstrip("/"): _content(path) for name, path in parts.files.items()}
    modes = {name.lstrip("/"): path.stat().st_mode & 0o755 | 0o444 for name, path in parts.files.items()}
    home = _HOME.lstrip("/")
    content |= {f"{home}/{name}/__init__.py": b"" for name in _PACKAGES}
    content |= {f"{home}/{_PACKAGES[-1]}/programs/{path.name}": path.read_bytes() for path in package.glob("*.py")}
    content |= _FILES
    folders = dict(_FOLDERS)
    folders[str(Path(sysconfig.get_config_var("DESTSHARED") or "lib/lib-dynload")).lstrip("/")] = 0o755
    for name in content:
        for parent in Path(name).parents:
            if str(parent) != ".":
                folders.setdefault(str(parent), 0o755)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode in sorted(folders.items()):
            entry = _entry(name, mode)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        for name, data in sorted(content.items()):
            entry = _entry(name, modes.get(name, 0o644))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def command(image: Image, parts: Parts) -> list[str]:
    """What an exported image runs."""
    words = catalog.program_of(image, [*image.entrypoint, *image.command])
    assert words is not None, f"{image.name} runs a program of the host"
    return [parts.interpreter, *FLAGS, _MAIN, *words]


def import_changes(image: Image, parts: Parts) -> list[str]:
    """The `--change` options of `docker import` that make the root folder this image."""
    return [
        f"ENTRYPOINT {json.dumps(command(image, parts))}",
        *(f"ENV {item}" for item in image.env),
        *(f"LABEL {key}={json.dumps(value)}" for key, value in image.labels.items()),
        *(f"EXPOSE {port}" for port in image.ports),
    ]


def archive(root: bytes, images: Iterable[Image], parts: Parts, architecture: str) -> bytes:
    """A tar for `docker load` with all `images` on the one layer `root`."""
    layer = hashlib.sha256(root).hexdigest()
    members = {f"{layer}/layer.tar": root}
    manifest = []
    for image in images:
        config = json.dumps(_config(image, parts, layer, architecture)).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        members[name] = config
        tags = [image.reference]
        if catalog.find_image(image.name) is image and image.tag != "latest":
            tags.append(f"{image.name}:latest")
        manifest.append({"Config": name, "RepoTags": tags, "Layers": [f"{layer}/layer.tar"]})
    members["manifest.json"] = json.dumps(manifest).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            entry = _entry(name, 0o644)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _config(image: Image, parts: Parts, layer: str, architecture: str) -> dict[str, object]:
    return {
        "architecture": architecture,
        "os": "linux",
        "created": format_time(CREATED * SECOND),
        "config": {
            "Entrypoint": command(image, parts),
            "Env": list(image.env),
            "Labels": image.labels,
            "ExposedPorts": {port: {} for port in image.ports},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        "history": [{"created": format_time(CREATED * SECOND), "created_by": "swarmtui"}],
    }


def _content(path: Path) -> bytes:
    """A file; debugging information, which is most of a self-built Python, is left out where the machine has `strip`."""
    data = path.read_bytes()
    if not data.startswith(b"\x7fELF") or shutil.which("strip") is None:
        return data
    with tempfile.TemporaryDirectory() as folder:
        stripped = Path(folder, "stripped")
        _run(["strip", "--strip-unneeded", "-o", str(stripped), str(path)])
        return stripped.read_bytes()


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = mode, CREATED
    return entry


def _run(words: Sequence[str]) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    except FileNotFoundError:
        raise CannotExport(f"{words[0]} is needed and is not on this machine") from None
    except subprocess.CalledProcessError as error:
        raise CannotExport(f"{' '.join(words[:2])} failed: {error.stderr.strip()}") from None
    return done.stdout


def go_architecture(machine: str) -> str:
    """The architecture as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}.get(machine, machine)


def main(arguments: Sequence[str]) -> int:
    """Write the tar that is asked for; the exit code."""
    plain = "--rootfs" in arguments
    names = [word for word in arguments if not word.startswith("--")]
    if len(names) != 1:
        sys.stderr.write("usage: python -m agent.worker.executors.images.export [--rootfs] OUT.tar\n")
        return 2
    try:
        parts = find_parts()
        root = rootfs(parts)
    except CannotExport as error:
        sys.stderr.write(f"{error}\n")
        return 1
    Path(names[0]).write_bytes(root if plain else archive(root, exported(), parts, go_architecture(os.uname().machine)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
