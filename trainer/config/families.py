"""The families of backbones, one line each, with the facts that are needed without torch.

A new family is a file in `trainer/network/`, a line of FAMILIES, and a file in `sweeps/model/`.
This module does not import them, so that planning thousands of cells does not load torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FamilyFacts:
    """What validation and estimates need to know of a family.

    Attributes:
        implementation: dotted path of the class, see `trainer.network.backbone.Backbone`.
        layers: measured cost of a step per pixel with the head of `sweeps/model`, in units of one
            bottleneck times its squared width; 0 where `model.blocks` and `model.width` say it.
        parameters: of the network with that head; 0 likewise.
    """

    implementation: str
    layers: float = 0.0
    parameters: float = 0.0

    @property
    def is_fixed(self) -> bool:
        """Whether it is one network, whose size no setting changes."""
        return self.parameters > 0


def family_facts(family: str) -> FamilyFacts:
    """The facts of one family.

    Raises:
        ValueError: there is no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"model.family={family!r}; known: {', '.join(FAMILIES)}.")
    return FAMILIES[family]


FAMILIES = {
    "resnet": FamilyFacts("trainer.network.resnet.ResNet"),
    "efficientnet_lite0": FamilyFacts(
        "trainer.network.efficientnet.EfficientNetLite0", layers=3e3, parameters=3.66e6
    ),
}
