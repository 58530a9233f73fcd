import math

import pytest
import torch
from torch import nn

from dstrun.model.vit import Attention, ViT, sincos_positions
from dstrun.option import ConfigError

CIFAR = (3, 32, 32)


@pytest.mark.parametrize(("classes", "prunable"), [(10, 4_224_000), (100, 4_270_080)])
def test_counts(count, classes, prunable):
    found = count(ViT(patch=4), CIFAR, classes)
    assert (found.layers, found.prunable) == (18, prunable)
    assert found.macs == 64 * (24_576 + 4_194_304) + 512 * classes  # 270.0 M
    assert found.attention == 12_582_912


def test_only_what_is_learned_is_a_parameter_or_saved():
    model = ViT(patch=4).build(CIFAR, 10)
    norms = 2 * (48 + 512) + 4 * 2 * 2 * 512 + 2 * 512
    biases = 512 + 4 * (256 + 512) + 10
    assert sum(p.numel() for p in model.parameters()) == 4_224_000 + norms + biases
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()
    assert "positions" in dict(model.named_buffers())


def test_width_scales_features_heads_and_hidden():
    model = ViT(patch=4, width=1.5).build(CIFAR, 10)
    assert model.embed[1].weight.shape == (768, 48)
    assert model.blocks[0].attention.qkv.weight.shape == (3 * 9 * 64, 768)
    assert model.blocks[3].mlp[1].weight.shape == (384, 768)


@pytest.mark.parametrize("width", [0.1, 0.301])
def test_any_width_runs(count, width):
    assert count(ViT(patch=4, width=width), CIFAR, 10).layers == 18


@pytest.mark.parametrize(("image", "patch"), [(CIFAR, 8), ((1, 8, 8), 4), ((2, 6, 4), 2)])
def test_gradients_flow(learns, image, patch):
    learns(ViT(patch=patch, width=0.25), image, 10)


def test_positions_by_hand():
    table = sincos_positions((2, 3), 8)
    y, x = 1, 2  # the last token
    expected = [math.sin(x), math.sin(x / 1e4), math.cos(x), math.cos(x / 1e4)]
    expected += [math.sin(y), math.sin(y / 1e4), math.cos(y), math.cos(y / 1e4)]
    torch.testing.assert_close(table[5], torch.tensor(expected))
    assert table.shape == (6, 8)
    assert len(table.unique(dim=0)) == 6
    assert sincos_positions((2, 3), 7).equal(sincos_positions((2, 3), 8)[:, :7])


def test_patches_are_the_tiles_of_the_image():
    model = ViT(patch=2, width=0.02).build((3, 4, 6), 5)
    x = torch.randn(1, 3, 4, 6)
    seen = []
    model.embed.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x)
    (tokens,) = seen
    assert tokens.shape == (1, 6, 12)
    for token in range(6):
        row, column = divmod(token, 3)
        tile = x[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        torch.testing.assert_close(tokens[0, token], tile.permute(1, 2, 0).flatten())


def test_attention_by_hand():
    torch.manual_seed(0)
    attention = Attention(features=10, heads=2)
    x = torch.randn(1, 5, 10)
    q, k, v = attention.qkv(attention.norm(x))[0].split(128, dim=1)
    heads = []
    for h in (slice(0, 64), slice(64, 128)):
        heads.append((q[:, h] @ k[:, h].T / 8).softmax(1) @ v[:, h])
    torch.testing.assert_close(attention(x)[0], attention.out(torch.cat(heads, 1)))
    assert isinstance(attention.out, nn.Linear)


@pytest.mark.parametrize(("patch", "image", "near"), [(5, CIFAR, 4), (4, (1, 6, 4), 2), (64, CIFAR, 32)])
def test_a_patch_that_does_not_tile_the_image_is_refused(patch, image, near):
    message = rf"^model\.patch={patch} must divide the image's {image[1]}x{image[2]}: the nearest is {near}$"
    with pytest.raises(ConfigError, match=message):
        ViT(patch=patch).build(image, 10)
