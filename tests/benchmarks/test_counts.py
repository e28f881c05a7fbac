"""A step launches as few kernels and sends as few bytes as it may; counted without a GPU."""

import pytest

from benchmarks import counts
from benchmarks.counts import count
from benchmarks.two_steps import Case

pytestmark = pytest.mark.long
LAYERS = {"resnet50": 64, "resnet101": 115}  # of batch normalisation
MILLIONS = {"resnet50": 40.5, "resnet101": 59.5}  # of parameters
OTHER_MESSAGES = 7  # five numbers of pixels; the gradient, there and back


@pytest.mark.parametrize("model", ["resnet50", "resnet101"])
def test_four_ranks_launch_at_most_three_tenths_more_kernels_than_one(model: str) -> None:
    case = Case(model=model, crop=321, batch=2, classes=21)

    alone, together = count(case, 1), count(case, 4)

    assert alone.kernels <= {"resnet50": 1770, "resnet101": 2875}[model]
    assert (alone.messages, alone.message_bytes) == (0, 0)
    assert together.kernels <= 1.3 * alone.kernels
    # Two forwards that train and two backwards.
    assert together.messages == 4 * LAYERS[model] + OTHER_MESSAGES
    # Every gradient goes out once, and a quarter of their sums; the rest is small.
    assert together.message_bytes <= 1.01 * (4e6 * MILLIONS[model] * 1.25)


def test_the_table_has_a_row_for_each_number_of_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    counts.main(["models=resnet8", "crop=33", "ranks=1,3"])

    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "resnet8" in line]
    assert [row[2].strip() for row in rows] == ["1", "3"]
    assert int(rows[0][3]) < int(rows[1][3])
