"""The focal loss (Lin et al. 2017)."""

from torch.nn.functional import cross_entropy


def focal(logits, labels, gamma=2.0):
    """Return the mean over samples of -(1 - p)^gamma log p, p that of the label."""
    loss = cross_entropy(logits, labels, reduction="none")
    return ((1 - (-loss).exp()) ** gamma * loss).mean()
