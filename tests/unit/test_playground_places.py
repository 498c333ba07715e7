"""Where sessions live, and how the living are told from the dead."""

import os
from pathlib import Path

import pytest

from swarmtui.playground import kernel
from swarmtui.playground.places import (
    ProcessMark,
    Record,
    UnusableBase,
    base_folder,
    base_lock,
    leave_base,
    make_session,
    open_base,
    sessions,
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "base"


def test_the_base_is_the_users_own_or_the_one_that_is_asked_for() -> None:
    assert base_folder({}, 1000) == Path("/var/tmp/swarmtui-1000")
    assert base_folder({"SWARMTUI_PLAYGROUND_DIR": "/srv/pg"}, 1000) == Path("/srv/pg")


def test_a_folder_that_would_make_socket_paths_too_long_is_refused() -> None:
    with pytest.raises(UnusableBase, match="over 107 bytes"):
        open_base(Path("/tmp") / ("x" * 80))


def test_a_folder_below_run_is_refused_as_instances_have_their_own() -> None:
    with pytest.raises(UnusableBase, match="/run of their own"):
        open_base(Path("/run/pg"))


def test_a_folder_that_others_can_write_to_is_refused(base: Path) -> None:
    base.mkdir()
    base.chmod(0o777)
    with pytest.raises(UnusableBase, match="only you can write to"):
        open_base(base)


def test_a_link_laid_in_the_bases_place_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    base.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnusableBase):
        open_base(base)


def test_a_session_lives_as_long_as_its_lock_is_held(base: Path) -> None:
    with base_lock(base):
        folder, lock = make_session(base)
        assert sessions(base) == ([folder], [])
        os.close(lock)
        assert sessions(base) == ([], [folder])


def test_a_session_that_died_before_it_had_a_lock_is_dead(base: Path) -> None:
    with base_lock(base):
        (base / "abcdef").mkdir()
        assert sessions(base) == ([], [base / "abcdef"])


def test_the_base_goes_with_the_last_session_and_not_before(base: Path) -> None:
    with base_lock(base):
        folder, lock = make_session(base)
    leave_base(base)
    assert folder.exists()
    os.close(lock)
    (folder / "lock").unlink()
    folder.rmdir()
    leave_base(base)
    assert not base.exists()


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    start = kernel.start_time(os.getpid())
    assert start is not None
    record = Record("abc", "engine", "192.168.210.0/24", 0, "swarm-abc", [ProcessMark(os.getpid(), start)])
    record.write(tmp_path)
    assert Record.read(tmp_path) == record
    assert {path.name for path in tmp_path.iterdir()} == {"record.json"}


def test_a_session_without_a_record_has_an_empty_one(tmp_path: Path) -> None:
    assert Record.read(tmp_path) == Record(session=tmp_path.name, tier="")
