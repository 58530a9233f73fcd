"""A batch that takes several passes trains as one that takes a single pass, updates included."""

from __future__ import annotations

import pytest
import ranks_worker
import torch
from ranks_worker import GROWTH, MLP, MORE, UPDATES
from test_resume import same
from torch import nn

from dstrun.backend.masked import layer as masked
from dstrun.backend.sparse import layer as sparse
from dstrun.config.composition import compose
from dstrun.grow.gradient import Gradient
from dstrun.grow.gse import GSE
from dstrun.layer.growth import GrowthRequest
from dstrun.run.assemble import assemble
from dstrun.subset.grabo import GraBo
from dstrun.subset.graest import GraEst
from dstrun.subset.uniform import Uniform
from dstrun.system.ranks import ALONE, Passes
from dstrun.system.stream import generator
from dstrun.system.trouble import ConfigError
from dstrun.train.training import Training

CASES = {
    f"{name}-{backend}": [*words, UPDATES, f"backend={backend}"]
    for name, words in GROWTH.items()
    for backend in ("masked", "sparse")
}
CASES |= {name: MORE[name] for name in ("fresh", "global", "dense", "snfs", "str", "deepr")}


@pytest.mark.parametrize("case", CASES)
def test_several_passes_train_what_one_does(case: str) -> None:
    """Every update sees the whole batch: topologies are the same, all else up to the order of sums."""
    words = [*MLP, *CASES[case]]
    one, several = (ranks_worker.train([*words, f"microbatch={size}"], False, ALONE) for size in (48, 8))
    assert one["updates"] == several["updates"]
    assert same(one["topologies"], several["topologies"])
    close = {"rtol": 2e-3, "atol": 2e-4}
    torch.testing.assert_close(torch.tensor(one["losses"]), torch.tensor(several["losses"]), **close)
    torch.testing.assert_close(one["model"], several["model"], **close)


@pytest.mark.parametrize("backend", [masked, sparse], ids=lambda b: b.__name__.rpartition(".")[2])
@pytest.mark.parametrize("subset", [None, Uniform(), GraBo(), GraEst()], ids=lambda s: type(s).__name__)
def test_candidates_of_a_convolution_are_of_the_whole_batch(backend, subset) -> None:
    """Groups, and a linear layer whose items are tokens; with three passes."""
    criterion = Gradient() if subset is None else GSE(subset=subset)
    x = torch.randn(12, 4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for size in (None, 4):
        torch.manual_seed(0)
        layers = nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(2), nn.Linear(4, 5)
        net = nn.Sequential(*layers).double()
        sparse_layers = backend.sparsify(net, [30, 8], seed=1)
        passes = Passes(size)
        for index, layer in enumerate(sparse_layers):
            layer.passes = passes
            layer.request_growth(GrowthRequest(criterion, 9, generator(0, "grow", index)))
        for summing in [True, False] if passes.wanted and size else [False]:
            passes.summing = summing
            for part in passes.over(len(x)):
                (net(x[part]).square().sum() / 50).backward()
            if summing:
                net.zero_grad()
        found.append([layer.proposal() for layer in sparse_layers])
    for whole, parts in zip(*found, strict=True):
        assert torch.equal(whole.positions, parts.positions)
        torch.testing.assert_close(whole.scores, parts.scores)
        assert whole.drawn == parts.drawn


def assembled(*words: str) -> Training:
    return assemble(compose([*ranks_worker.COMMON, *words]), torch.device("cpu"))


def test_running_statistics_move_as_far_in_several_passes() -> None:
    """Images of which every pass has the same: then so are the statistics, and those of a single pass."""
    found = []
    for words in ((), ("microbatch=12",)):
        run = assembled("model=resnet20", "model.width=0.25", "method=static", *words)
        x, y = run.data.batch(0)
        run.data.batch = lambda step, part=slice(None), x=x, y=y: (
            x[:12].repeat(4, 1, 1, 1)[part],
            y[:12].repeat(4)[part],
        )
        run.model.train()
        for _ in range(2):
            run.take_step()
        found.append({k: v for k, v in run.model.state_dict().items() if "running_mean" in k})
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("size", "share"), [(None, None), (48, None), (16, 16)])
def test_a_pass_has_what_is_asked_for(size: int | None, share: int | None) -> None:
    assert assembled(*MLP, "method=static", f"microbatch={'null' if size is None else size}").passes.size == share


def test_a_microbatch_divides_the_batch() -> None:
    with pytest.raises(ConfigError, match="microbatch=20 must divide batch_size=48: the nearest below is 16"):
        compose([*ranks_worker.COMMON, *MLP, "microbatch=20"])


def test_samples_are_shared_out_equally() -> None:
    passes = Passes(8)
    for samples, sizes in ((24, [8, 8, 8]), (20, [5] * 4), (7, [7]), (1, [1])):
        assert [part.stop - part.start for part in passes.over(samples)] == sizes
        assert passes.last
