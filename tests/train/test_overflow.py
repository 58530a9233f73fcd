"""An update on gradients that overflowed is left out, as a step is; an optimizer unfit for updates is refused."""

import logging

import pytest
import torch

from dstrun.config.composition import compose
from dstrun.optimizer.adamw import AdamW
from dstrun.run.assemble import assemble
from dstrun.system.trouble import ConfigError
from dstrun.train.training import Training

CPU = torch.device("cpu")
RUN = ["dataset=digits", "model=mlp", "model.width=0.2", "sparsity=0.8", "batch_size=16", "threads=1"]
OFTEN = ["schedule.interval_steps=2", "schedule.end=1", "schedule.fraction=0.3"]
HUGE = 2.0**24
backends = pytest.mark.parametrize("backend", ["masked", "sparse"])


def training(*words: str) -> Training:
    made = assemble(compose([*RUN, *words]), CPU)
    made.model.train()
    return made


def force(made: Training, scale: float) -> None:
    made.precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)


@backends
@pytest.mark.parametrize("method", ["rigl", "gse", "gse method.batch=fresh"])
def test_an_update_that_overflows_is_left_out(backend: str, method: str, caplog: pytest.LogCaptureFixture) -> None:
    fresh = "fresh" in method
    made = training("precision=fp16", f"backend={backend}", *f"method={method}".split(), *OFTEN)
    force(made, 256.0)
    made.take_step()
    positions, values = [x.topology.positions for x in made.layers], [x.values().clone() for x in made.layers]
    force(made, HUGE)
    (update,) = made.take_step()
    assert update.skipped
    assert {(change.pruned, change.grown) for change in update.changes} == {(0, 0)}
    assert all(change.candidates > 0 for change in update.changes), "they were scored, and are counted"
    assert all(torch.equal(x.topology.positions, old) for x, old in zip(made.layers, positions, strict=True))
    assert all(torch.equal(x.values(), old) for x, old in zip(made.layers, values, strict=True))
    assert made.precision.scaler.get_scale() == HUGE / (4 if fresh else 2)  # fresh: the step besides overflows as well
    assert (made.updates, made.skipped) == (0, 1)
    said = "gradients overflowed at step 2: its step is skipped (precision=fp16, 1 so far)"
    assert said in [record.message for record in caplog.records if record.levelno == logging.WARNING]
    force(made, 256.0)  # nothing is left of what was proposed: the next update is as any
    made.take_step()
    (update,) = made.take_step()
    assert not update.skipped
    assert all(change.grown > 0 for change in update.changes)
    assert (made.updates, made.skipped) == (1, 1)


@backends
def test_at_a_scale_that_fits_an_update_is_that_of_single_precision(backend: str) -> None:
    grown = []
    for precision in ("fp32", "fp16"):
        made = training(f"precision={precision}", f"backend={backend}", "method=rigl", *OFTEN)
        if precision == "fp16":
            force(made, 256.0)
        before = [set(x.topology.positions.tolist()) for x in made.layers]
        made.take_step()
        made.take_step()
        after = [set(x.topology.positions.tolist()) for x in made.layers]
        grown.append({(i, p) for i, (a, b) in enumerate(zip(after, before, strict=True)) for p in a - b})
    assert len(grown[0] & grown[1]) > 0.9 * len(grown[0])


def test_an_update_that_needs_no_gradient_is_made_all_the_same() -> None:
    made = training("precision=fp16", "method=set", *OFTEN)
    made.take_step()
    force(made, HUGE)
    (update,) = made.take_step()
    assert not update.skipped
    assert made.updates == 1


def test_in_single_precision_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = training("method=rigl", *OFTEN)
    made.take_step()
    monkeypatch.setattr(made, "loss", lambda logits, y: logits.sum() * float("inf"))
    (update,) = made.take_step()
    assert not update.skipped


def test_how_many_were_left_out_survives_a_stop() -> None:
    made, other = (training("precision=fp16", "method=rigl", *OFTEN) for _ in range(2))
    made.take_step()
    force(made, HUGE)
    made.take_step()
    other.load_state(made.state())
    assert other.skipped == 1
    assert other.precision.state() == made.precision.state() | {"_growth_tracker": 0}


def test_backing_off_is_what_a_step_left_out_does() -> None:
    made = training("precision=fp16", "method=static")
    force(made, HUGE)
    before = [p.detach().clone() for p in made.model.parameters()]
    made.take_step()
    assert all(torch.equal(p, old) for p, old in zip(made.model.parameters(), before, strict=True))
    after = made.precision.state()
    force(made, HUGE)
    made.precision.back_off()
    assert made.precision.state() == after


@pytest.mark.parametrize(("method", "refused"), [("rigl", True), ("gmp", False), ("static", False)])
def test_an_optimizer_unfit_for_growth_is_refused_at_its_first_step(
    method: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdamW, "build", lambda self, parameters: torch.optim.AdamW(parameters, self.lr))
    made = training(f"method={method}", "optimizer=adamw")
    if refused:
        with pytest.raises(ConfigError, match=r"AdamW keeps 'step' for \S+, which is stale once connections grow"):
            made.take_step()
    else:
        made.take_step()
        made.take_step()
