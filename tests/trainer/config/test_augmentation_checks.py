"""Settings of resizing that have no meaning are refused before anything is read."""

import pytest

from trainer.config.compose import compose


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["data.scales=[0.5,0]"], "each must be above 0"),
        (["data.scale_halves=true", "data.scale_min=1.2"], "needs data.scale_min <= 1"),
        (["data.unlabelled_scale_min=3"], "not above the third"),
    ],
)
def test_a_mistake_is_named(words: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        compose(words)
