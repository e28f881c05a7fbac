"""Files appear whole or not at all."""

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datasets.files import (
    atomic_create,
    atomic_path,
    atomic_write,
    file_sha256,
    whole_folder,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_write_replaces_the_whole_content_and_leaves_nothing_else(tmp_path, durable) -> None:
    path = tmp_path / "a.json"

    atomic_write(path, b"a long first content", durable=durable)
    atomic_write(path, "gr\u00fcn", durable=durable)

    assert path.read_bytes() == "gr\u00fcn".encode()
    assert names(tmp_path) == ["a.json"]


def test_an_error_while_writing_leaves_the_old_content(tmp_path) -> None:
    path = tmp_path / "a.json"
    atomic_write(path, "old")

    def write_half() -> None:
        with atomic_path(path) as part:
            part.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()

    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_is_named_with_the_file_and_the_cure(tmp_path) -> None:
    path, part = tmp_path / "a.json", tmp_path / "part"
    atomic_write(path, "old")
    part.symlink_to(Path("/dev/full"))  # where the kernel answers every write with ENOSPC

    with (
        pytest.raises(
            OSError, match=f"Could not write {path}: No space left .* make room"
        ) as caught,
        atomic_path(path, part=part) as name,
    ):
        name.write_text("new")

    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"


def test_a_chosen_temporary_name_is_used(tmp_path) -> None:
    with atomic_path(tmp_path / "a", part=tmp_path / "a.tmp", durable=True) as part:
        assert part == tmp_path / "a.tmp"
        part.write_text("content")

    assert names(tmp_path) == ["a"]


def test_temporary_files_are_hidden_and_end_in_tmp(tmp_path) -> None:
    with atomic_path(tmp_path / "a.json") as part:
        part.write_text("x")

        assert part.parent == tmp_path
        assert part.name.startswith(".")
        assert part.name.endswith(".tmp")


def test_a_file_is_as_readable_as_any_other_new_file(tmp_path) -> None:
    (tmp_path / "plain").write_text("x")

    atomic_write(tmp_path / "atomic", "x")

    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_not_made(tmp_path) -> None:
    # A run whose directory was moved away must not make it anew.
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "gone/a.json", "x")

    assert names(tmp_path) == []


def test_of_many_that_create_a_file_one_does(tmp_path) -> None:
    path = tmp_path / "a"

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: atomic_create(path, str(number)), range(40)))

    assert made.count(True) == 1
    assert path.read_text() == str(made.index(True))
    assert names(tmp_path) == ["a"]


def test_sha256_of_a_file(tmp_path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "a").write_bytes(data)

    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_linked_folder_is_filled_and_a_link_to_nowhere_is_named(tmp_path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to("disk")
    (tmp_path / "lost").symlink_to("nowhere")

    with whole_folder(tmp_path / "root") as folder:
        (folder / "file").touch()
    with pytest.raises(FileNotFoundError, match="nowhere"), whole_folder(tmp_path / "lost"):
        pass

    assert (tmp_path / "root").is_symlink()
    assert (tmp_path / "disk" / "file").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "lost", "root"]
