"""The semi-supervised methods, one line each, with the facts that are needed without torch.

A new method is a file in `trainer/methods/`, a line of METHODS, and a file in `sweeps/method/`.
This module does not import the methods, so that planning thousands of cells does not load torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodFacts:
    """What loading, schedule, validation and time estimates need to know of a method.

    Attributes:
        implementation: dotted path of the class, see `trainer.methods.interface.Method`.
        passes: measured cost of a step per labelled image, in units of one forward and backward
            pass of one image; time estimates are multiples of it.
        needs_unlabelled: whether a step takes unlabelled images; one epoch is then a pass over the
            unlabelled list.
        pairs: views whose teacher-student pairs the inter-pixel term takes by default.
        other_pairs: views that `loss.views` may name besides; `fp` has dropped features.
        has_own_boxes: whether its CutMix boxes follow a rule of its own, and not UniMatch's, whose
            probability is `data.strong.cutmix`.
        stages: dotted path of a function that needs no torch, for a method of several trainings:
            from the configuration, `num_labelled` and `num_unlabelled` to the images in an epoch of
            each stage by its name. Empty: one training.
    """

    implementation: str
    passes: float
    needs_unlabelled: bool = True
    pairs: tuple[str, ...] = ()
    other_pairs: tuple[str, ...] = ()
    has_own_boxes: bool = False
    stages: str = ""


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
    "fixmatch": MethodFacts("trainer.methods.fixmatch.FixMatch", passes=2.7, pairs=("s1",)),
    "unimatch": MethodFacts(
        "trainer.methods.unimatch.UniMatch", passes=4.0, pairs=("s1", "s2"), other_pairs=("fp",)
    ),
    "mean_teacher": MethodFacts(
        "trainer.methods.mean_teacher.MeanTeacher", passes=2.3, pairs=("weak",)
    ),
    "cutmix_seg": MethodFacts(
        "trainer.methods.cutmix_seg.CutMixSeg", passes=2.5, pairs=("mixed",), has_own_boxes=True
    ),
    "mt_cutmix": MethodFacts(
        "trainer.methods.mt_cutmix.MeanTeacherCutMix", passes=2.1, pairs=("s1",)
    ),
    "cps": MethodFacts(
        "trainer.methods.cps.CrossPseudoSupervision",
        passes=4.8,
        pairs=("1to2", "2to1"),
        has_own_boxes=True,
    ),
    "ps_mt": MethodFacts(
        "trainer.methods.ps_mt.PerturbedStrictMeanTeachers",
        passes=3.8,
        pairs=("mean",),
        other_pairs=("teacher_1", "teacher_2"),
        has_own_boxes=True,
    ),
    "cac": MethodFacts(
        "trainer.methods.cac.ContextAwareConsistency", passes=3.2, pairs=("1to2", "2to1")
    ),
    "u2pl": MethodFacts(
        "trainer.methods.u2pl.U2PL",
        passes=3.8,
        pairs=("teacher_eval",),
        other_pairs=("teacher_train",),
        has_own_boxes=True,
    ),
    "ael": MethodFacts(
        "trainer.methods.ael.AdaptiveEqualizationLearning",
        passes=2.8,
        pairs=("mixed",),
        other_pairs=("labelled",),
        has_own_boxes=True,
    ),
    "st_plusplus": MethodFacts(
        "trainer.methods.st_plusplus.StPlusPlus",
        passes=1.0,
        needs_unlabelled=False,
        pairs=("strong",),
        stages="trainer.methods.st_plusplus_stages.stage_images",
    ),
    "pc2seg_style": MethodFacts(
        "trainer.methods.pc2seg_style.Pc2SegStyle", passes=3.1, pairs=("strong",)
    ),
}
