"""The shipped images on a real Docker Engine, made of this machine's own Python."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest

from agent.worker.executors.images import export
from agent.worker.executors.images.catalog import find_image

ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def parts() -> export.Parts:
    return export.find_parts()


@pytest.fixture(scope="module")
def root(parts: export.Parts) -> bytes:
    return export.rootfs(parts)


def test_one_small_layer_serves_all_images(parts: export.Parts, root: bytes) -> None:
    assert len(root) < 40 * 2**20
    assert export.rootfs(parts) == root
    with tarfile.open(fileobj=io.BytesIO(export.archive(root, export.exported(), parts, "amd64"))) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        layers = {layer for image in manifest for layer in image["Layers"]}
        tags = {tag for image in manifest for tag in image["RepoTags"]}
    assert len(layers) == 1
    assert tags == {
        "swarmtui/whoami:latest",
        "swarmtui/web:1.0",
        "swarmtui/web:1.1",
        "swarmtui/web:latest",
        "swarmtui/logger:latest",
        "swarmtui/fail:latest",
    }


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="chroot needs root")
def test_the_root_folder_has_all_that_the_programs_need(parts: export.Parts, root: bytes, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(root)) as tar:
        tar.extractall(tmp_path, filter="fully_trusted")
    words = export.command(find_image("swarmtui/fail"), parts)
    done = subprocess.run(
        ["chroot", str(tmp_path), *words],
        env={**os.environ, "EXIT_CODE": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "ends with exit code 7 after 0 s, as asked for\n")
    words = export.command(find_image("swarmtui/logger"), parts)
    done = subprocess.run(
        ["chroot", str(tmp_path), *words],
        env={**os.environ, "COUNT": "3", "RATE": "max"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)


def test_what_ldd_says() -> None:
    listing = """\tlinux-vdso.so.1 (0x00007fa5fad6b000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fa5fa41e000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007fa5fad6d000)
"""
    assert export.libraries(listing) == ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
    assert export.libraries("\tstatically linked\n") == []
    with pytest.raises(export.CannotExport, match=r"libssl\.so\.9 => not found"):
        export.libraries("\tlibssl.so.9 => not found\n")


def test_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "images.tar"
    words = [sys.executable, "-m", "agent.worker.executors.images.export"]
    subprocess.run([*words, str(out)], check=True, cwd=Path(__file__).parents[2])
    with tarfile.open(out) as tar:
        assert "manifest.json" in tar.getnames()
    wrong = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert wrong.returncode == 2
    assert "usage" in wrong.stderr


@pytest.mark.engine
@pytest.mark.skipif(not ROOT, reason="an engine needs root")
def test_an_engine_loads_imports_and_runs_them(
    parts: export.Parts, root: bytes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue("engine")
    docker = ["docker", "--host", engine.address]

    def run(*words: str, stdin: bytes | None = None) -> str:
        done = subprocess.run([*docker, *words], input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return (done.stdout + done.stderr).decode().strip()

    run("load", stdin=export.archive(root, export.exported(), parts, export.go_architecture(os.uname().machine)))
    changes = [
        word for change in export.import_changes(find_image("swarmtui/whoami"), parts) for word in ("--change", change)
    ]
    run("import", *changes, "-", "swarmtui/whoami:imported", stdin=root)
    layers = {
        run("image", "inspect", "--format", "{{.RootFS.Layers}}", name)
        for name in ("swarmtui/whoami", "swarmtui/whoami:imported", "swarmtui/web:1.0", "swarmtui/web", "swarmtui/fail")
    }
    assert len(layers) == 1
    for name in ("swarmtui/whoami:latest", "swarmtui/whoami:imported"):
        container = run("run", "-d", "--hostname", "box", name)
        try:
            address = run("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container)
            facts = json.loads(answer(f"http://{address}:8000/api"))
            assert (facts["hostname"], facts["pid"]) == ("box", 1)
            assert run("inspect", "--format", '{{index .Config.Labels "swarmtui.image"}}', container) == "built-in"
            begun = time.monotonic()
            run("stop", container)
            assert time.monotonic() - begun < 8
            assert run("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
        finally:
            run("rm", "-f", container)
    ended = subprocess.run(
        [*docker, "run", "--rm", "-e", "EXIT_CODE=9", "swarmtui/fail"], capture_output=True, check=False
    )
    assert ended.returncode == 9


def answer(url: str) -> bytes:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bytes(response.read())
        except OSError:
            assert time.monotonic() < deadline, "it never listened"
            time.sleep(0.02)
