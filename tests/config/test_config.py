"""Every wrong input ends in one sentence that names it; every right one composes."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from dstrun.cli.help import options
from dstrun.cli.main import main
from dstrun.config.composition import compose, compose_sweep
from dstrun.config.schema import DEFAULTS
from dstrun.system.trouble import ConfigError

WRONG = {
    "sparsty=0.9": "sparsty is not a setting here (did you mean sparsity?); dstrun help settings lists them",
    "grow.gama=2": "grow.gama is not a setting here (did you mean grow.gamma?); dstrun help settings lists them",
    "optimizer.momentun=0": "optimizer.momentun is not a setting here (did you mean optimizer.momentum?); "
    "dstrun help settings lists them",
    "optimiser.lr=1": "optimiser.lr is not a setting here (did you mean optimizer.lr?); dstrun help settings "
    "lists them",
    "gamma=2": "gamma is not a setting here (did you mean grow.gamma?); dstrun help settings lists them",
    "resnet56": "resnet56 cannot be read as key=value: quote special characters",
    "model=resnet57": f"model=resnet57 is not known: choose {', '.join(options('model'))} (did you mean resnet56?)",
    "grow=gsr": "grow=gsr is not known: choose gradient, gse, random (did you mean gse?)",
    "method=rigel": f"method=rigel is not known: choose {', '.join(options('method'))} (did you mean rigl?)",
    "sparsity=1": "sparsity=1.0 must be in [0, 1)",
    "sparsity=-0.1": "sparsity=-0.1 must be in [0, 1)",
    "sparsity=high": "sparsity=high must be a number",
    "seed=-1": "seed=-1 must be at least 0",
    "seed=1.5": "seed=1.5 must be a whole number",
    "epochs=0": "epochs=0 must be at least 1",
    "epochs=ten": "epochs=ten must be a whole number",
    "checkpoint.every_minutes=0": "checkpoint.every_minutes=0.0 must be above 0",
    "checkpoint.every_minutes=soon": "checkpoint.every_minutes=soon must be a number",
    "checkpoint=5": "checkpoint=5 makes no sense: set checkpoint.every_minutes",
    "batch_size=0": "batch_size=0 must be at least 1",
    "label_smoothing=1": "label_smoothing=1.0 must be in [0, 1)",
    "scope=net": "scope=net is not known: choose layer, global",
    "backend=csr": "backend=csr is not known: choose masked, sparse, auto",
    "device=gpu": "device=gpu is not known: choose auto, cpu, cuda, mps (did you mean cuda?)",
    "precision=fp61": "precision=fp61 is not known: choose fp32, tf32, bf16, fp16 (did you mean fp16?)",
    "wandb=of": "wandb=of is not known: choose auto, online, offline, disabled",
    "wandb.projec=x": "wandb.projec is not a setting here (did you mean wandb.project?); dstrun help settings "
    "lists them",
    "wandb.tags=pilot": "wandb.tags=pilot must be a list such as [pilot]",
    "tracker=tensorbord": "tracker=tensorbord is not known: choose mlflow, tensorboard, wandb, none (did you mean "
    "tensorboard?)",
    "tracker=wandb,mlflow": "tracker=wandb,mlflow lists several values: put -m before it to sweep over them, or write "
    "tracker=[wandb,mlflow] for one run with all of them",
    "tracker=[none,wandb]": "tracker=[none,wandb] makes no sense: none cannot be combined",
    "tracker=mlflow wandb=online": "wandb=online makes no sense with tracker=mlflow: add wandb",
    "tracker=none wandb.project=x": "wandb.project=x makes no sense with tracker=none: add wandb",
    "threads=0": "threads=0 must be at least 1",
    "experiment=../up": "experiment=../up must be a folder name: letters, digits, . _ + - and /",
    "model.width=0": "model.width=0 must be above 0",
    "grow.gamma=0": "grow.gamma=0 must be above 0",
    "grow.gamma=wide": "grow.gamma=wide must be a number",
    "grow.sampling=exakt": "grow.sampling=exakt is not known: choose exact, single (did you mean exact?)",
    "schedule.fraction=0": "schedule.fraction=0 must be in (0, 1]",
    "schedule.end=2": "schedule.end=2 must be in [0, 1]",
    "method=gmp schedule.begin=0.8": "schedule.begin=0.8 must be below schedule.end=0.768",
    "schedule.begin=0.6": "schedule.begin=0.6 must be below schedule.end=0.6",
    "schedule.interval_steps=0": "schedule.interval_steps=0 must be at least 1",
    "schedule.interval_steps=5 schedule.updates=5": "schedule.interval_steps and schedule.updates both set "
    "when to update: set one of them",
    "optimizer.lr=0": "optimizer.lr=0 must be in (0, 1e+06]",
    "optimizer.lr_milestones=[0.6,0.4]": "optimizer.lr_milestones=[0.6, 0.4] must increase",
    "optimizer.lr_milestones=0.5": "optimizer.lr_milestones=0.5 must be a list such as [1,2]",
    "optimizer.nesterov=true optimizer.momentum=0": "optimizer.nesterov=true makes no sense with optimizer.momentum=0",
    "dataset.validation=50000": None,
    "dataset.limit=0": None,
    "method.batch=next": "method.batch=next is not known: choose current, fresh",
    "subset=grabo grow=random": "subset makes no sense with grow=random: only grow=gse draws a subset",
    "subset=grabo grow.gama=1": "grow.gama is not a setting here (did you mean grow.gamma?); "
    "dstrun help settings lists them",
    "method=gse subset=grabo seedd=1": "seedd is not a setting here (did you mean seed?); dstrun help "
    "settings lists them",
    "subset=grabo method=rigl": "subset makes no sense with method=rigl: only grow=gse draws a subset",
    "method=static grow=gse": "grow=gse makes no sense with method=static, whose topology never changes",
    "method=static schedule=cosine": "schedule=cosine makes no sense with method=static, whose topology never changes",
    "method=dense sparsity=0.9": "sparsity=0.9 makes no sense with method=dense, which trains every connection: "
    "leave it at 0",
    "method=dense allocation=erk": "allocation=erk makes no sense with method=dense, which trains every connection",
    "method=snip backend=sparse": "backend=sparse makes no sense with method=snip, which scores every connection of "
    "the dense network",
    "method=gmp backend=auto": "backend=auto makes no sense with method=gmp, which starts dense",
    "method=snip allocation=erk": "allocation=erk makes no sense with method=snip scope=global, where scores "
    "decide the allocation: set scope=layer",
    "method=gmp scope=global": "allocation=erk makes no sense with method=gmp scope=global, where scores "
    "decide the allocation: set scope=layer",
    "method=snip scope=layer": "allocation=null makes no sense with method=snip scope=layer, which needs one",
    "method=static ~allocation": "allocation=null makes no sense with method=static, which needs one",
    "method=snip prune=magnitude": "prune=magnitude makes no sense with method=snip, which prunes once, before "
    "training",
    "method=gmp grow=random": "grow=random makes no sense with method=gmp, which only ever prunes",
    "method=gmp ~schedule": "schedule=null makes no sense with method=gmp, which needs one",
    "powerprop=0.5": "powerprop=0.5 must be at least 1",
    "powerprop=2": "powerprop=2 makes no sense with method=dst: a weight that starts at 0 gets no gradient and never "
    "moves",
    "powerprop=2 method=static backend=sparse": "powerprop=2 makes no sense with backend=sparse: it needs "
    "dense storage",
    "sparsity=0": "sparsity=0 makes no sense with method=dst: no connection is left to grow",
    "grow=null": "grow=null makes no sense with method=dst, which needs one",
    "subset=null": "subset=null makes no sense with grow=gse, which draws one",
    "subset=null method=rigl": "subset makes no sense with method=rigl: only grow=gse draws a subset",
    "optimizer=null": "optimizer=null is not known: choose adam, adamw, sgd",
    "method=static scope=global": "scope=global makes no sense with method=static, whose topology never changes",
    "method=dense scope=global": "scope=global makes no sense with method=dense, which trains every connection",
    "~grow": "grow=null makes no sense with method=dst, which needs one",
    "~model": f"model=null is not known: choose {', '.join(options('model'))}",
    "seed=0,1": "seed=0,1 lists several values: put -m before it to sweep over them",
    "+grow.extra=1": "grow.extra is not a setting of this grow",
    "+optimizer=adam": "+optimizer=adam adds a setting that exists: write optimizer=adam",
    "+sparsity=0.5": "+sparsity=0.5 adds a setting that exists: write sparsity=0.5",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_said_in_one_sentence(words: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(words.split())
    sentence = str(error.value)
    assert "\n" not in sentence
    if WRONG[words] is None:  # the data set's own sentence: tests/dataset
        assert words.split("=")[0] in sentence
    else:
        assert sentence == WRONG[words]


def test_trackers_are_one_or_several_and_a_mode_alone_stands_for_all_that_wandb_was(tmp_path) -> None:
    (tmp_path / "study.yaml").write_text("defaults: [config, _self_]\nwandb: offline\nseed: 3\n")
    found = compose(["wandb.project=2026", "wandb.tags=[a]"], [str(tmp_path)], "study").config
    assert (found["wandb"]["mode"], found["wandb"]["project"], found["wandb"]["tags"]) == ("offline", "2026", ["a"])
    assert compose(["wandb=disabled", "tracker=none"]).config["tracker"] == []
    assert compose(["tracker=[wandb,tensorboard]"]).config["tracker"] == ["wandb", "tensorboard"]
    modes = [run.config["wandb"]["mode"] for run in compose_sweep(["wandb=disabled,offline"])]
    assert modes == ["disabled", "offline"]


def test_sweep_expands_and_checks_every_run() -> None:
    runs = compose_sweep(["sparsity=0.9,0.95", "method=set,rigl", "seed=range(0,2)", "model=mlp"])
    assert len(runs) == 8
    assert {(r.config["sparsity"], r.choices["method"], r.config["seed"]) for r in runs} == {
        (s, m, seed) for s in (0.9, 0.95) for m in ("set", "rigl") for seed in (0, 1)
    }
    with pytest.raises(ConfigError, match=re.escape("sparsity=1.5")):
        compose_sweep(["sparsity=0.9,1.5"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {"method": "dst", "grow": "gse", "subset": "uniform", "allocation": "er_fan_out", "prune": "magnitude"}),
        ("method=rigl", {"grow": "gradient", "subset": None, "allocation": "erk", "schedule": "cosine"}),
        ("method=rigl grow=gse subset=graest", {"grow": "gse", "subset": "graest", "allocation": "erk"}),
        ("method=set allocation=uniform", {"grow": "random", "allocation": "uniform", "schedule": "constant"}),
        ("method=static", {"grow": None, "prune": None, "schedule": None, "allocation": "er_fan_out"}),
        ("method=dense", {"grow": None, "allocation": None}),
        ("method=snip", {"allocation": None, "prune": None, "schedule": None}),
        ("method=snip scope=layer allocation=erk", {"allocation": "erk"}),
        ("method=gmp", {"allocation": "erk", "prune": "magnitude", "grow": None, "schedule": "cubic"}),
        ("method=gmp scope=global ~allocation schedule=cosine", {"allocation": None, "schedule": "cosine"}),
        ("method=gmp scope=global allocation=null schedule=cosine", {"allocation": None, "schedule": "cosine"}),
        ("method=static prune=null grow=null schedule=null", {"prune": None, "allocation": "er_fan_out"}),
        ("powerprop=2 method=gmp", {"method": "gmp"}),
    ],
)
def test_presets_choose_parts_and_each_part_moves_alone(words: str, expected: dict) -> None:
    assert compose(words.split()).choices.items() >= expected.items()


@pytest.mark.parametrize("name", options("method"))
def test_every_part_of_a_preset_moves_alone(name: str) -> None:
    """Settings that a preset gives to one option must not be settings that another of the group lacks."""
    chosen = compose([f"method={name}"]).choices
    for group in ("allocation", "prune", "grow", "schedule"):
        if chosen[group] is not None:
            for option in options(group):
                try:
                    compose([f"method={name}", f"{group}={option}"])
                except ConfigError as error:
                    assert "is not a setting of" not in str(error)  # noqa: PT017


def test_recipes() -> None:
    """Evci et al. 2020, Heddes et al. 2024, Mocanu et al. 2018, each at its own length."""
    rigl, gse, set_ = (compose([f"method={m}"]) for m in ("rigl", "gse", "set"))
    assert (rigl.config["epochs"], gse.config["epochs"], set_.config["epochs"]) == (250, 200, 200)
    assert rigl.build("schedule").steps(97656) == list(range(100, 75001, 100))
    assert gse.build("schedule").steps(78000) == list(range(1000, 46001, 1000))
    assert set_.build("schedule").steps(78000) == list(range(390, 77611, 390))
    assert [rigl.build("optimizer").lr_at(s, 97656) for s in (0, 29999, 30001, 60001, 90001)] == pytest.approx(
        [0.1, 0.1, 0.02, 0.004, 0.0008]
    )
    assert [gse.build("optimizer").lr_at(s, 78000) for s in (0, 31199, 31200, 46800)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.001]
    )
    assert compose(["model=vit"]).build("optimizer").lr == 0.01


IMAGENET = ["dataset=imagenet", "model=resnet50"]


@pytest.mark.parametrize("name", options("method"))
def test_a_method_composes_on_imagenet_and_a_user_wins_over_its_protocol(name: str) -> None:
    assert compose([*IMAGENET, f"method={name}"]).choices["model"] == "resnet50"
    said = {"epochs": 7, "batch_size": 64, "label_smoothing": 0.25}
    words = [*(f"{key}={value}" for key, value in said.items()), "optimizer.lr=0.2", "optimizer.weight_decay=0.5"]
    found = compose([*IMAGENET, f"method={name}", *words]).config
    assert found.items() >= said.items()
    assert (found["optimizer"]["lr"], found["optimizer"]["weight_decay"]) == (0.2, 0.5)
    if found["schedule"] is not None:
        times = {"end": 0.5, "fraction": 0.125}
        words = [f"schedule.{key}={value}" for key, value in times.items()]
        assert compose([*IMAGENET, f"method={name}", *words]).config["schedule"].items() >= times.items()


def test_imagenet_protocols() -> None:
    """Evci et al. 2020: 32,000 steps of 4,096 images; gradual pruning from 10,000 to 25,000, growth until 25,000."""
    for name in ("dense", "static", "set", "rigl", "gse", "gmp"):
        experiment = compose([*IMAGENET, f"method={name}"])
        keys = ("epochs", "batch_size", "label_smoothing")
        assert [experiment.config[key] for key in keys] == [100, 4096, 0.1]
        optimizer = experiment.build("optimizer")
        assert optimizer.weight_decay == 0.0001
        assert [optimizer.lr_at(s, 32000) for s in (9599, 9600, 22399, 22400, 28800)] == pytest.approx(
            [1.6, 0.16, 0.16, 0.016, 0.0016]
        )
        assert compose([f"method={name}"]).config["batch_size"] == 128
    steps = {n: compose([*IMAGENET, f"method={n}"]).build("schedule").steps(32000) for n in ("set", "rigl", "gmp")}
    assert steps["set"] == steps["rigl"] == list(range(100, 25001, 100))
    assert steps["gmp"] == list(range(11000, 25001, 1000))


def test_a_users_own_folder_adds_options(tmp_path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny.yaml").write_text("_target_: dstrun.model.mlp.MLP\nhidden: [4]\nwidth: 1.0\n")
    assert compose(["model=tiny"], [str(tmp_path)]).config["model"]["hidden"] == [4]


LIKE_NUMBERS = ["2026_11_26", "12e4567", "1e5", "007", "2026", "1_0", "true", "0x10", "1e-3"]


@pytest.mark.parametrize("name", LIKE_NUMBERS)
def test_names_are_text_whatever_they_look_like(name: str) -> None:
    found = compose([f"experiment={name}", f"results={name}"])
    assert (found.config["experiment"], found.config["results"]) == (name, name)
    assert found.command == (f"experiment={name}", f"results={name}")


def test_a_setting_that_is_unset_has_its_default() -> None:
    found = compose(["model=mlp", "dataset=digits", *(f"~{name}" for name in DEFAULTS)]).config
    assert {**found, "recipe": {}} == {**found, **DEFAULTS}


def test_what_is_shown_has_names_as_they_are_trained_under(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=mlp", "dataset=digits", "experiment=12e4567", "results=1e5"]
    assert main([*words, "--cfg", "job"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.experiment, shown.results) == ("12e4567", "1e5")


def test_names_of_a_sweep_are_text() -> None:
    found = compose_sweep(["model=mlp", f"experiment={','.join(LIKE_NUMBERS)}", "results=1e5"])
    assert [run.config["experiment"] for run in found] == LIKE_NUMBERS
    assert {run.config["results"] for run in found} == {"1e5"}


def test_names_in_a_sweep_file_are_text_or_refused(tmp_path) -> None:
    text = "defaults: [config, _self_]\nhydra: {mode: MULTIRUN, sweeper: {params: {experiment: '2026_11_26,1e5'}}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    found = compose_sweep(["model=mlp"], [str(tmp_path)], "mine")
    assert [run.config["experiment"] for run in found] == ["2026_11_26", "1e5"]
    for wrong in (text.replace("'2026_11_26,1e5'", "2026_11_26"), f"{text}results: 12e4567\n"):
        (tmp_path / "mine.yaml").write_text(wrong)
        with pytest.raises(ConfigError, match="in a sweep file is not read as text by YAML: write it in quotes"):
            compose_sweep(["model=mlp"], [str(tmp_path)], "mine")


def test_names_of_options_and_their_text_settings_are_text(tmp_path, monkeypatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "1e5.yaml").write_text("_target_: named_nets.Net\nvariant: a\ncount: 1\n")
    (tmp_path / "named_nets.py").write_text(
        "from dstrun.config.option import option\n\n@option\nclass Net:\n    variant: str = 'a'\n    count: int = 1\n"
        "    def build(self): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["model=1e5", "model.variant=12e4567", "model.count=1_000"]
    for found in (compose(words, [str(tmp_path)]), *compose_sweep(words, [str(tmp_path)])):
        assert found.choices["model"] == "1e5"
        assert (found.config["model"]["variant"], found.config["model"]["count"]) == ("12e4567", 1000)


def test_a_typed_number_picks_from_a_grid_by_its_value(tmp_path) -> None:
    text = "defaults: [config, _self_]\nhydra: {mode: MULTIRUN, sweeper: {grids: [{optimizer.lr: '0.1,0.2'}]}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    found = compose_sweep(["model=mlp", "optimizer.lr=0.10"], [str(tmp_path)], "mine")
    assert [run.config["optimizer"]["lr"] for run in found] == [0.1]
