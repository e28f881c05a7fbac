"""What docs/developing/extending.md adds is added to a copy of the code, and trains there."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from datasets.config import DataConfig, SyntheticConfig
from datasets.dataset import open_dataset
from orchestrator.execution.code_snapshot import CODE_PACKAGES, is_code
from orchestrator.results.store import read_rows
from orchestrator.storage.local_root import LocalRoot

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "developing" / "extending.md"
BLOCK = re.compile(r"(?:`([\w/]+\.\w+)`:\n\n)?```(python|yaml|diff)\n(.*?)```", re.DOTALL)
CELL = {"recipe": "shapes", "split": "few", "backbone": "plain", "crop": 32}


def extended_copy(folder: Path) -> Path:
    """A copy of the code with all that the page adds."""
    for package in CODE_PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / package, folder / package, ignore=ignored)
    for name, kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "diff":
            words = ["git", "apply", "-"]
            done = subprocess.run(words, cwd=folder, input=text, text=True, capture_output=True)
            assert done.returncode == 0, f"{text}\n{done.stderr}"
        else:
            assert not (folder / name).exists()
            (folder / name).write_text(text)
    return folder


def published_shapes(root: Path) -> Path:
    """Drawn scenes as a data set that somebody published, with lists."""
    drawn = SyntheticConfig(num_train=12, num_val=4, width=48, height=40)
    split = open_dataset(DataConfig(root=str(root), drawn=drawn, split="1of2")).split
    (root / "splits" / "few").mkdir(parents=True)
    lists = {
        "few/labeled.txt": split.labelled,
        "few/unlabeled.txt": split.unlabelled,
        "val.txt": split.validation,
    }
    for name, images in lists.items():
        (root / "splits" / name).write_text("\n".join(images) + "\n")
    return root


def test_a_cell_with_all_that_the_page_adds_is_trained_by_its_back_end(tmp_path: Path) -> None:
    code, data = extended_copy(tmp_path / "code"), published_shapes(tmp_path / "shapes")
    grid = {
        "title": "All at once",
        "cells": [{"base": {**CELL, "method": "unimatch_star", "loss": "tv"}}],
        "overrides": [f"data.root={data}", "run.device=cpu", "loss.threshold=0.2"],
    }
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(grid))
    words = ["launch", str(tmp_path / "all.yaml"), f"root={tmp_path / 'out'}", "backend=processes"]

    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = read_rows(LocalRoot(tmp_path / "out"))
    assert (row.status, row.backend, row.loss, row.backbone) == ("done", "processes", "tv", "plain")
    assert row.class_names[:2] == ("background", "disc")
    metrics = (tmp_path / "out" / "runs" / row.key / "metrics.jsonl").read_text()
    terms = [float(term) for term in re.findall(r'"loss_inter_pixel": ([\d.e-]+)', metrics)]
    # A mean of total variations, each at most 1 and divided by ln of two pixels or more.
    assert 0.0 < max(terms) <= 1.0 / math.log(2)


def test_the_page_writes_each_kind_of_thing_once() -> None:
    names = [name for name, kind, _ in BLOCK.findall(PAGE.read_text()) if kind != "diff"]

    assert len(names) == len(set(names)) == 6
    assert all(is_code(Path(name)) for name in names)
