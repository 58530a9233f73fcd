"""Train with sparse weights in Lightning, save and resume: pip install lightning; python examples/lightning_loop.py."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from dstrun import Sparsifier

EPOCHS, BATCH = 10, 64


class Digits(lightning.LightningModule):
    """A network, its optimizer, and the sparsifier."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
        # On a GPU, call self.network.cuda() here: the network must be on its device before the sparsifier is created.
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        self.sparsifier = Sparsifier(
            self.network, self.optimizer, "schedule.interval_steps=50", method="rigl", sparsity=0.9, steps=steps
        )
        self.resumed = None

    def configure_optimizers(self):
        return self.optimizer

    def training_step(self, batch, index):
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch, index):
        images, labels = batch
        self.log("accuracy", (self.network(images).argmax(1) == labels).float().mean())

    def on_save_checkpoint(self, checkpoint):
        checkpoint["sparsifier"] = self.sparsifier.state_dict()

    def on_load_checkpoint(self, checkpoint):
        self.resumed = checkpoint["sparsifier"]

    def on_fit_start(self):  # the weights are loaded by now
        if self.resumed is not None:
            self.sparsifier.load_state_dict(self.resumed)


def trainer(epochs: int) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


def main() -> None:
    lightning.seed_everything(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    train, test = random_split(TensorDataset(images, labels), [1400, len(labels) - 1400])
    loaders = DataLoader(train, BATCH, shuffle=True, drop_last=True), DataLoader(test, len(test))
    steps = EPOCHS * len(loaders[0])

    first = trainer(EPOCHS // 2)
    first.fit(Digits(steps), *loaders)
    first.save_checkpoint("digits.ckpt")

    module, second = Digits(steps), trainer(EPOCHS)
    second.fit(module, *loaders, ckpt_path="digits.ckpt")
    accuracy, made = second.callback_metrics["accuracy"].item(), module.sparsifier
    print(f"sparsity {made.sparsity:.3f}, accuracy {accuracy:.3f} on test after {made.step} steps")


if __name__ == "__main__":
    main()
