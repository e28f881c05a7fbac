"""Methods by the name configuration gives them."""

from collections.abc import Callable

from trainer.choices import Algorithm
from trainer.methods.fixmatch import FixMatch
from trainer.methods.step import Method, Setting
from trainer.methods.supervised import Supervised
from trainer.methods.unimatch import UniMatch

METHODS: dict[Algorithm, Callable[[Setting], Method]] = {
    Algorithm.supervised: Supervised,
    Algorithm.fixmatch: FixMatch,
    Algorithm.unimatch: UniMatch,
}
