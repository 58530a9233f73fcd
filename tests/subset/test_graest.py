import torch

from dstrun.subset.graest import GraEst


def test_magnitudes_of_the_signed_sums(context):
    x = torch.tensor([[1.0, -2.0, 4.0], [-3.0, 1.0, 4.0]])
    delta = torch.tensor([[1.0, -1.0], [-1.0, 0.5]])
    alike = ([[2, 1, 8]], [0, 0.5])  # both items have one sign
    apart = ([[4, 3, 0]], [2, 1.5])  # they have opposite ones
    found = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        f, g = GraEst().factors(context((2, 3), x=x, delta=delta, generator=generator))
        found.append((f.tolist(), g.tolist()))
    assert all(case in (alike, apart) for case in found)
    assert 4 < found.count(alike) < 16
    assert GraEst.aggregates


def test_signs_are_fresh_in_every_pass(context):
    x, delta = torch.randn(64, 3), torch.randn(64, 2)
    asked = context((2, 3), x=x, delta=delta)
    first, second = GraEst().factors(asked), GraEst().factors(asked)
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_every_output_position_of_a_convolution_has_a_sign_of_its_own(context):
    x = torch.ones(1, 4, 8, 8)
    f, g = GraEst().factors(context((4, 2), groups=2, x=x, delta=torch.ones(1, 4, 8, 8)))
    # The sum of 64 signs, the same for every input and output.
    assert f.shape == (2, 2)
    assert g.shape == (4,)
    assert f.unique().numel() == 1
    assert torch.equal(f.flatten(), g)
    assert g[0] < 40
