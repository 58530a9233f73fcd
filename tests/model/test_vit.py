import math

import pytest
import torch
from torch import nn

from dstrun.model.vit import Attention, DeiT, ViT, sincos_positions
from dstrun.system.trouble import ConfigError

CIFAR = (3, 32, 32)
IMAGENET = (3, 224, 224)


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


@pytest.mark.parametrize(
    ("width", "total", "prunable", "giga"),
    [(1, 22_050_664, 21_912_576, "4.6"), (0.5, 5_717_416, 5_647_872, "1.3"), (2, 86_567_656, 86_292_480, "17.6")],
)
def test_counts_of_deit(count, width, total, prunable, giga):
    """Touvron et al. 2021: 22, 5 and 86 million parameters; 4.6, 1.3 and 17.6 G with the products of attention."""
    found = count(DeiT(width=width), IMAGENET, 1000)
    assert (found.layers, found.total, found.prunable) == (50, total, prunable)
    heads, tokens = int(6 * width), 197
    features = 64 * heads
    assert found.attention == 12 * 2 * tokens**2 * features
    assert found.macs == tokens * 12 * 12 * features**2 + 196 * 768 * features + 1000 * features
    assert f"{(found.macs + found.attention) / 1e9:.1f}" == giga


def test_deit_computes_what_its_equation_says():
    torch.manual_seed(0)
    model = DeiT(patch=2, width=0.34).build((3, 4, 6), 5).eval()
    image = torch.randn(1, 3, 4, 6)
    weights = dict(model.named_parameters())

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()

    patches = [image[:, :, r : r + 2, c : c + 2].flatten(1) for r in (0, 2) for c in (0, 2, 4)]
    kernel, bias = weights["patch_embed.proj.weight"].flatten(1), weights["patch_embed.proj.bias"]
    x = torch.stack([weights["cls_token"][0], *(patch @ kernel.T + bias for patch in patches)], 1)
    x = x + weights["pos_embed"]
    for block in range(12):
        q, k, v = linear(f"blocks.{block}.attn.qkv", norm(x)).unflatten(-1, (3, 2, 64)).permute(2, 0, 3, 1, 4)
        heads = (q @ k.transpose(-1, -2) / 8).softmax(-1) @ v
        x = x + linear(f"blocks.{block}.attn.proj", torch.cat(heads.unbind(1), -1))
        hidden = nn.functional.gelu(linear(f"blocks.{block}.mlp.fc1", norm(x)))
        x = x + linear(f"blocks.{block}.mlp.fc2", hidden)
    torch.testing.assert_close(model(image), linear("head", norm(x)[:, 0]))


def test_deit_learns_on_small_images_by_smaller_patches(learns):
    learns(DeiT(patch=4, width=0.2), (1, 8, 12), 10)
    with pytest.raises(ConfigError, match=r"^model\.patch=16 must divide the image's 8x8: the nearest is 8$"):
        DeiT().build((1, 8, 8), 10)
