"""The door of configuration: what it accepts, and what it says when it does not."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given
from hypothesis import strategies as st

from datasets.config import StrongViewConfig
from trainer.config.compose import (
    _PLAIN,
    CONFIG_FOLDER,
    GROUPS,
    choices,
    compose,
    field_names,
    from_json,
    quoted,
)
from trainer.config.fingerprint import config_json, differences, fingerprint
from trainer.config.schema import TrainConfig, Upsample


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.eopchs=3"], "Unknown setting 'optim.eopchs'. Did you mean optim.epochs"),
        (["optim.epochs=many"], "optim.epochs takes a whole number"),
        (
            ["method=unimatsch"],
            "Unknown method 'unimatsch'; known: ael, cac, cps",
        ),
        (["model=resnet18"], "Unknown model 'resnet18'; known: efficientnet_lite0, resnet101"),
        (["recipe=coco"], "Unknown recipe 'coco'; known: cityscapes, earth, folder, synthetic"),
        (["loss.distance=l2"], "loss.distance takes one of none, kl, cr"),
        (["epochs"], "'epochs' is no setting; write key=value"),
        (["optim.epochs=-1"], "optim.epochs=-1 is out of range; it lies in [0, 1e+06]"),
        (["method=supervised", "loss=kl"], "loss=kl needs unlabelled images"),
        (["loss=kl", "loss.views=[s3]"], "loss.views=['s3']; choose among s1, s2, fp"),
        (["loss=kl", "method=fixmatch", "loss.on_labeled=true"], "which only unimatch has"),
        (["loss=kl", "method=fixmatch", "loss.views=[s2]"], "loss.views=['s2']; choose among s1."),
        (["loss=kl", "loss.views=[fp]", "loss.cutmix=uncut"], "speaks of the strong views s1 and"),
        (["method.cps.weight=-1"], "method.cps.weight=-1.0 is out of range; it lies in [0, 1e+06]"),
        (["method.cps.wait=1"], "Did you mean method.cps.weight"),
        (["optim.batch=1"], "makes steps of one image"),
        (["run.device=tpu"], "it is auto, cpu or cuda"),
        (["model.family=vit"], "model.family='vit'; known: resnet, efficientnet_lite0"),
        (
            ["model=efficientnet_lite0", "model.width=64"],
            "model.width is a setting of ResNets, and model.family=efficientnet_lite0 is one",
        ),
        (["model.init=imagenet"], "model.init=imagenet needs model.width=64, got 16"),
        (
            ["recipe=voc", "data.dataset=synthetic", "data.drawn.num_train=8"],
            "'data.drawn.num_train=8' cannot be set: data.drawn is null in this recipe",
        ),
        (["recipe=voc", "data.drawn={num_train: 8}"], "data.drawn is null in this recipe"),
        (["recipe=voc", "+data.drawn.seed=1"], "data.drawn is null in this recipe"),
        (["data.drawn=3"], "by name, such as data.drawn."),
        (["data.drawn={num_trai: 8}"], "Unknown setting 'data.drawn.num_trai'"),
        (["data.drawn={num_train: {a: 1}}"], "data.drawn.num_train takes a whole number"),
        (["run=[1]"], "is not valid: set what belongs to"),
        (["optim=null"], "optim=null is not valid: set what belongs to optim by name"),
        (["loss=null"], "Unknown loss 'null'; known: cr"),
        (["+optim.speed=1"], "Unknown setting 'optim.speed'"),
        (["loss.views=[[s1]]"], "loss.views=[['s1']]: each entry is one value"),
        (["optim.lr={a: 1}"], "optim.lr takes a number"),
        (["optim.epochs='"], "optim.epochs takes a whole number"),
    ],
)
def test_bad_input_is_refused_in_words(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        compose(overrides)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recipe", ["voc", "cityscapes", "synthetic"])
@pytest.mark.parametrize("method", choices("method"))
def test_every_recipe_composes_with_every_method(recipe: str, method: str) -> None:
    model = "resnet14_w16" if recipe == "synthetic" else "resnet101"

    config = compose([f"recipe={recipe}", f"model={model}", f"method={method}"])

    assert (config.recipe, config.method.name, config.model.backbone) == (recipe, method, model)


def test_official_unimatch_is_bilinear_and_its_re_run_nearest() -> None:
    assert compose(["method=unimatch"]).model.upsample is Upsample.bilinear
    assert compose(["method=unimatch_star"]).model.upsample is Upsample.nearest
    assert compose(["method=unimatch_star"]).method.algorithm == "unimatch"


def test_the_paper_s_numbers_stand_in_the_recipes() -> None:
    voc, city = (
        compose([f"recipe={r}", "model=resnet50", "loss=kl"]) for r in ("voc", "cityscapes")
    )

    assert (voc.lr, voc.batch, voc.optim.epochs, voc.data.crop) == (0.0005, 4, 80, 321)
    assert (city.lr, city.batch, city.optim.epochs, city.data.crop) == (0.0025, 4, 240, 801)
    assert (voc.loss.warmup_epochs, city.loss.warmup_epochs) == (5, 30)
    assert (voc.method.confidence, city.method.confidence) == (0.95, 0.0)
    assert (voc.optim.head_lr_factor, city.optim.head_lr_factor) == (10.0, 1.0)
    assert (voc.loss.threshold, voc.loss.temperature, voc.loss.alpha) == (0.8, 4.0, 1.0)


def test_a_config_survives_its_json() -> None:
    config = compose(["loss=cr", "loss.views=[s1,fp]", "data.drawn.seed=4"])

    assert from_json(config_json(config)) == config


def test_texts_that_differ_in_the_seed_alone_share_their_parts() -> None:
    text = config_json(compose(["loss=cr", "seed=7"]))

    seven, million = from_json(text), from_json(text.replace('"seed":7}', '"seed":1000000}'))

    assert (seven.seed, million.seed) == (7, 1_000_000)
    assert config_json(million) == text.replace('"seed":7}', '"seed":1000000}')
    assert seven.loss is million.loss  # OmegaConf read one of them
    with pytest.raises(ValueError, match="not valid"):
        from_json(text.replace('"seed":7}', '"seed":07}'))


def test_an_edited_preset_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(CONFIG_FOLDER, tmp_path / "sweeps")
    monkeypatch.setattr("trainer.config.compose.CONFIG_FOLDER", tmp_path / "sweeps")
    preset = tmp_path / "sweeps" / "loss" / "kl.yaml"
    before = compose(["loss=kl"])

    preset.write_text(preset.read_text() + "temperature: 7.5\n")

    assert before.loss.temperature == 4.0
    assert compose(["loss=kl"]).loss.temperature == 7.5


def test_a_setting_from_the_environment_is_that_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []
    for folder in ("one", "two"):
        monkeypatch.setenv("FOLDER", folder)
        folders.append(compose(["run.folder=${oc.env:FOLDER}"]).run.folder)

    assert folders == ["one", "two"]


@pytest.mark.parametrize("text", ["3", "[]", "{", '{"optim": 3}', '{"optim": {"speed": 1}}'])
def test_the_json_of_another_schema_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="The checkout that wrote it reads it"):
        from_json(text)


def test_every_field_has_a_name_on_the_command_line() -> None:
    names = field_names()

    assert {"optim.lr", "data.drawn.seed", "loss.views", "run.device", "seed"} <= set(names)
    assert len(names) == len(set(names))
    assert all(choices(group) for group in GROUPS)


def test_execution_fields_leave_the_fingerprint_alone() -> None:
    plain = compose([])
    elsewhere = compose(
        [
            "run.loader_workers=3",
            "run.device=cpu",
            "data.root=/x",
            "run.threads=2",
            "run.folder=/y",
            "run.log_steps=7",
            "run.checkpoint_minutes=1",
        ]
    )

    assert fingerprint(elsewhere) == fingerprint(plain)


def test_every_identity_field_moves_the_fingerprint() -> None:
    plain = compose([])
    changes = [
        "optim.lr=0.1",
        "seed=1",
        "data.split=1of4",
        "loss.t2_scale=true",
        "data.mix=other",
        "method.teacher=ema",
        "evaluation.every_epochs=3",
        "data.drawn.seed=1",
        "optim.precision=bf16",
        "model.dilations=[1,2,3]",
    ]

    found = {fingerprint(compose([change])) for change in changes}

    assert len(found | {fingerprint(plain)}) == len(changes) + 1


def test_differences_name_the_changed_identity_fields_alone() -> None:
    before = config_json(compose(["run.log_steps=9"]))

    changed = differences(before, compose(["optim.lr=0.1", "loss=kl", "run.threads=2"]))

    assert changed == [
        'loss.distance: "none" -> "kl"',
        'loss.name: "none" -> "kl"',
        "optim.lr: 0.03 -> 0.1",
    ]


def test_a_field_added_later_moves_no_hash_while_it_is_neutral() -> None:
    @dataclasses.dataclass(frozen=True)
    class Grown(TrainConfig):
        extra: int = dataclasses.field(default=5, metadata={"neutral": 5})

    plain = TrainConfig()

    assert fingerprint(Grown()) == fingerprint(plain)
    assert fingerprint(Grown(extra=6)) != fingerprint(plain)


def test_a_field_added_later_counts_as_neutral_where_a_text_is_older() -> None:
    four, one = compose(["optim.sampler_ranks=4"]), compose([])
    older = config_json(one).replace(',"sampler_ranks":1', "")

    assert differences(older, four) == ["optim.sampler_ranks: 1 -> 4"]
    assert differences(config_json(one), four) == ["optim.sampler_ranks: 1 -> 4"]
    assert differences(config_json(four), one) == ["optim.sampler_ranks: 4 -> 1"]
    assert differences(older, one) == differences(config_json(one), one) == []


VOC, CITYSCAPES = ["recipe=voc"], ["recipe=cityscapes"]


@pytest.mark.parametrize(
    ("overrides", "device", "expected"),
    [
        (VOC, "cpu", 0),
        (CITYSCAPES, "cpu", 0),
        (VOC, "cuda", 1),
        ([*VOC, "data.crop=513", "method=unimatch"], "cuda", 1),
        (CITYSCAPES, "cuda", 2),
        ([*CITYSCAPES, "run.cache=decoded"], "cuda", 1),
        ([*VOC, "run.augment=host"], "cuda", 4),
        ([*VOC, "run.loader_workers=3"], "cpu", 3),
        ([*CITYSCAPES, "run.loader_workers=0"], "cuda", 0),
    ],
)
def test_a_card_has_workers_by_the_kind_of_images(
    overrides: list[str], device: str, expected: int
) -> None:
    assert compose([*overrides, "model=resnet50"]).loader_workers(device) == expected


@pytest.mark.parametrize("value", ["-1", "4097", "some", "2.5", "true"])
def test_workers_are_a_number_or_auto(value: str) -> None:
    with pytest.raises(ValueError, match="loader_workers"):
        compose([f"run.loader_workers={value}"])


def test_workers_of_an_older_configuration_are_read_as_they_were_written() -> None:
    text = config_json(compose(["run.loader_workers=2"]))

    assert '"loader_workers":2' in text
    assert from_json(text).run.loader_workers == 2


def test_the_colours_of_the_paper_are_the_default_and_mild_ones_are_not() -> None:
    plain, paper, mild = compose([]), compose(["colour=paper"]), compose(["colour=mild"])

    assert fingerprint(paper) == fingerprint(plain) != fingerprint(mild)
    assert paper.data.strong == StrongViewConfig()
    for name in ("brightness", "contrast", "saturation", "hue", "grey"):
        assert getattr(mild.data.strong, name) < getattr(paper.data.strong, name)
    assert compose(["colour=mild", "data.strong.hue=0.1"]).data.strong.hue == 0.1


def test_a_recipe_may_choose_its_colours_and_the_command_line_others() -> None:
    earth = compose(["recipe=earth"])

    assert earth.data.strong == compose(["colour=mild"]).data.strong
    assert compose(["recipe=earth", "colour=paper"]).data.strong == StrongViewConfig()
    assert compose(["data.strong.grey=0.1", "recipe=earth"]).data.strong.grey == 0.1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["data.strong.hue=0.6"], r"hue=0\.6 is out of range; it lies in \[0, 0\.5\]"),
        (["data.strong.jitter=-0.1"], r"data\.strong\.jitter=-0\.1 is out of range"),
        (["method=cps", "data.strong.cutmix=0.9"], "method=cps draws boxes by a rule of its own"),
        (["colour=loud"], "Unknown colour 'loud'; known: mild, paper"),
    ],
)
def test_strong_views_that_cannot_be_are_refused(words: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        compose(words)


@pytest.mark.parametrize(
    "path",
    [
        *("/a/données", "/a/data (copy)", "/a/a=b", "/a/a,b", "/a/it's", "/a/#1", "/a/a&b", "~x"),
        *("/a/b c", "/a b/50%", "/a/写真", "/a/[1]", "/a/{x}", "/a/$HOME", "/a/*", "/a/x\u2028y"),
        *("010", "1e3", "true", "null", "1_8", "/a/b ", " /a", "/a/'", 'a "b"', "a: b", "/a/;!|<>"),
        *("a\tb", "/a/x@y", "/a/choice(1,2)", "\u00e9", "e\u0301", "/a/^", "/a/?", "/a/`x`"),
    ],
)
def test_a_path_is_taken_as_it_is_typed(path: str) -> None:
    for key in ("data.root", "run.folder", "run.weights"):
        word = OverridesParser.create().parse_override(quoted(f"{key}={path}"))
        assert (word.key_or_group, word.value()) == (key, path)


@given(st.from_regex(_PLAIN, fullmatch=True))
@example("nan")
@example("True")
@example("infinity")
@example("_")
def test_a_name_that_is_taken_as_it_stands_is_text_to_the_grammar(name: str) -> None:
    assume(_PLAIN.fullmatch(name))

    word = OverridesParser.create().parse_override(f"data.root={name}")

    assert word.value() == name


def test_paths_of_a_configuration_are_those_that_were_typed() -> None:
    config = compose(["data.root=/a/données (1), it's", "++run.folder=/a=b/#1", "data.split=1_8"])

    assert (config.data.root, config.run.folder) == ("/a/données (1), it's", "/a=b/#1")
    assert config.data.split == "1_8"


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("'/a/b c'", "/a/b c"),
        ('"/a/it\'s"', "/a/it's"),
        (r"/a\,b", "/a,b"),
        ("~/x", "/home/me/x"),
        ("~/données (1)", "/home/me/données (1)"),
        (r"/a/é\'", r"/a/é\'"),
        ("/a/é\\", "/a/é\\"),
    ],
)
def test_quotes_escapes_and_the_home_mean_what_they_meant(
    word: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    word = quoted(f"data.root={word}")
    assert OverridesParser.create().parse_override(word).value() == path
    assert quoted("data.root=${oc.env:HOME}/é") == "data.root=${oc.env:HOME}/é"


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("optim.lr=0.1,0.01", "optim.lr"),
        ("loss.alpha=1,2", "loss.alpha"),
        ("optim.epochs=range(1,5)", "optim.epochs"),
        ("method.confidence=choice(0.7,0.9)", "method.confidence"),
        ("run.cache=none,decoded", "run.cache"),
        ("optim.lr=interval(0,1)", "optim.lr"),
    ],
)
def test_several_values_of_one_setting_get_an_answer_of_ours(word, key):
    with pytest.raises(ValueError, match=f"^{key}=.* gives several values") as refused:
        compose([word])

    assert f"product: {{{key}: [...]}}" in str(refused.value)
    assert "multirun" not in str(refused.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optim.lr=x", "optim.lr takes a number."),
        ("optim.lr=(1", "optim.lr takes a number."),
        ("optim.lr=1=2", "optim.lr takes a number."),
        ("optim.epochs=1.5", "optim.epochs takes a whole number."),
        ("optim.epochs=null", "optim.epochs takes a whole number."),
        ("seed=[1]", "seed takes a whole number."),
        ("data.crop={a: 1}", "data.crop takes a whole number."),
        ("data.crop=", "data.crop takes a whole number."),
        ("optim.lag=maybe", "optim.lag takes true or false."),
        ("loss.distance=foo", "loss.distance takes one of none, kl, cr."),
        ("loss.distance=[kl]", "loss.distance takes one of none, kl, cr."),
        ("loss.views=s1", "loss.views takes a list in brackets, each entry text."),
        ("loss.views={a: 1}", "loss.views takes a list in brackets, each entry text."),
        ("model.blocks=[1,a]", "model.blocks takes a list in brackets, each entry a whole number."),
        ("run=[1]", "set what belongs to run by name, such as run.device=..."),
        ("data=null", "set what belongs to data by name, such as data.dataset=..."),
    ],
)
def test_a_value_of_a_wrong_kind_is_named_with_what_its_setting_takes(word, said):
    with pytest.raises(ValueError, match="is not valid") as refused:
        compose(["recipe=synthetic", "loss=kl", word])

    assert str(refused.value) == f"{word} is not valid: {said}"


@pytest.mark.parametrize("word", ["data.crop=${x}", "data.root=${oc.env:NO_SUCH_VARIABLE}"])
def test_a_reference_to_nothing_is_said_with_what_may_be_written(word):
    with pytest.raises(ValueError, match="cannot be filled in") as refused:
        compose([word])

    assert str(refused.value).startswith(f"{word} cannot be filled in: ")
    assert "Interpolation" not in str(refused.value)


def test_a_part_with_an_unknown_setting_is_answered_as_the_setting_itself():
    with pytest.raises(ValueError, match=r"^Unknown setting 'optim\.a'\. Did you mean optim\."):
        compose(["optim={a: 1}"])
