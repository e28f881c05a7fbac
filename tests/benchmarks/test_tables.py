"""What the benchmarks share: settings that are refused in words, rounds in turn, baselines."""

import numpy as np
import pytest
import torch

from benchmarks import backbones
from benchmarks.evaluation import histograms
from benchmarks.table import in_turn, settings
from trainer.evaluate import ConfusionMatrix


def test_a_setting_that_does_not_exist_is_named_with_those_that_do() -> None:
    assert settings(["rounds=3"], {"rounds": "5"}) == {"rounds": "3"}

    with pytest.raises(SystemExit, match="'laps=3' is no setting here; known: rounds=5"):
        settings(["laps=3"], {"rounds": "5"})


def test_variants_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    columns = in_turn({name: lambda n=name: calls.append(n) for name in "ab"}, rounds=2)

    assert calls == ["a", "b"] * 3
    assert [len(column.values) for column in columns] == [2, 2]


def test_the_histograms_of_the_baseline_count_what_we_count() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(0, 4, (30, 20), generator=generator)
    truth = torch.randint(0, 4, (30, 20), dtype=torch.uint8, generator=generator)
    truth[:5] = 255
    matrix = ConfusionMatrix(4)
    matrix.update(predicted, truth)

    hits, union, target = histograms(predicted.numpy(), truth.numpy().astype(np.int64), 4)

    assert hits.tolist() == matrix.counts.diagonal().tolist()
    assert target.tolist() == matrix.counts.sum(1).tolist()
    assert (100 * hits / union).tolist() == pytest.approx(matrix.compute().tolist())


def test_backbones_take_turns_at_every_crop(capsys: pytest.CaptureFixture[str]) -> None:
    models = ["resnet14_w8", "efficientnet_lite0"]
    words = [f"models={','.join(models)}", "crops=32,33", "rounds=1", "head=8", "batch=2"]

    backbones.main(words)

    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if " to " in line]
    assert [name.strip() for _, name, *_ in rows] == 2 * models
    assert [row[3].strip() for row in rows[::2]] == 2 * ["1.00 (1.00 to 1.00)"]
