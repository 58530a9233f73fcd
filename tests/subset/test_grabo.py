import torch

from dstrun.subset.grabo import GraBo


def test_sums_of_magnitudes(context):
    x = torch.tensor([[1.0, -2.0, 0.0], [-3.0, 1.0, 0.0]])
    delta = torch.tensor([[1.0, -1.0], [-1.0, 0.5]])
    f, g = GraBo().factors(context((2, 3), x=x, delta=delta))
    assert f.tolist() == [[4, 3, 0]]
    assert g.tolist() == [2, 1.5]
    assert GraBo.aggregates


def test_a_grouped_convolution_has_inputs_by_group(context):
    x = torch.tensor([1.0, -2.0, 3.0, -4.0]).view(1, 4, 1, 1)
    f, g = GraBo().factors(context((4, 2), groups=2, x=x, delta=-torch.ones(1, 4, 1, 1)))
    assert f.tolist() == [[1, 2], [3, 4]]
    assert g.tolist() == [1, 1, 1, 1]
