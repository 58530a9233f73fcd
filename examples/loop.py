"""Train your own network with sparse weights in your own training loop: python examples/loop.py."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from dstrun import Sparsifier

EPOCHS, BATCH = 20, 64

torch.manual_seed(0)
digits = load_digits()
images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
train, test = torch.randperm(len(labels)).split([1400, len(labels) - 1400])

model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
steps = EPOCHS * (len(train) // BATCH)
sparsifier = Sparsifier(
    model, optimizer, "schedule.interval_steps=50", method="gse", sparsity=0.95, backend="sparse", steps=steps
)
rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

for _ in range(EPOCHS):
    for batch in train[torch.randperm(len(train))].split(BATCH)[: len(train) // BATCH]:
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()  # the sparsifier runs in hooks of this call: nothing else to do
        optimizer.zero_grad()
        rate.step()

with torch.no_grad():
    accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
print(f"sparsity {sparsifier.sparsity:.3f}, accuracy {accuracy:.3f} on test after {sparsifier.step} steps")
