"""The methods a run can have, one line each, with what must be known without torch.

A new method is a file in `trainer/methods/`, a line of METHODS, and a file in `sweeps/method/`.
The module imports nothing: plans and estimates of thousands of cells start without torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodFacts:
    """What feed, schedule, checks and estimates ask of a method.

    Attributes:
        implementation: dotted path of the class, see `trainer.methods.interface.Method`.
        passes: of an image through the network for one labelled image, forward and backward;
            measured; the unit of the estimate.
        needs_unlabelled: whether a step takes unlabelled images, whose list is then an epoch.
        has_feature_view: whether it makes a feature-dropped forward (view `fp`).
    """

    implementation: str
    passes: float
    needs_unlabelled: bool = True
    has_feature_view: bool = False


def method_facts(algorithm: str) -> MethodFacts:
    """The facts of one method.

    Raises:
        ValueError: there is no such method.
    """
    if algorithm not in METHODS:
        raise ValueError(f"method.algorithm={algorithm!r}; known: {', '.join(METHODS)}.")
    return METHODS[algorithm]


METHODS = {
    "supervised": MethodFacts(
        "trainer.methods.supervised.Supervised", passes=1.0, needs_unlabelled=False
    ),
    "fixmatch": MethodFacts("trainer.methods.fixmatch.FixMatch", passes=2.3),
    "unimatch": MethodFacts("trainer.methods.unimatch.UniMatch", passes=4.0, has_feature_view=True),
}
