"""Bright squares on noise, to be told apart by their color: a map-style data set, and an augmentation."""

import torch
from torch.utils.data import Dataset


class Squares(Dataset):
    """Images (3, 12, 12) of 0..1 and their class, drawn from a seed of their own."""

    def __init__(self, train: bool, count: int = 300) -> None:
        self.first = 0 if train else 1_000_000
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        draws = torch.Generator().manual_seed(self.first + index)
        image = torch.rand(3, 12, 12, generator=draws) / 2
        row, column = torch.randint(8, (2,), generator=draws).tolist()
        image[index % 3, row : row + 4, column : column + 4] += 0.5
        return image, index % 3


def fade(image, most: float = 0.3):
    """Darken an image by a random share."""
    return image * (1 - most * torch.rand(()))
