"""Train with sparse weights in HF Trainer: pip install transformers accelerate; python examples/trainer_loop.py."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from dstrun import AgedAdam, Sparsifier

EPOCHS, BATCH = 10, 64


class Digits(nn.Module):
    """A network with the interface that the Trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))

    def forward(self, images, labels=None):
        logits = self.layers(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def main() -> None:
    set_seed(0)
    digits = load_digits()
    rows = [
        {"images": torch.tensor(image / 16, dtype=torch.float32), "labels": int(label)}
        for image, label in zip(digits.data, digits.target, strict=True)
    ]
    train, test = rows[:1400], rows[1400:]
    arguments = TrainingArguments(
        "trainer", num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, per_device_eval_batch_size=400,
        save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, logging_strategy="no",
    )  # fmt: skip
    model = Digits().to(arguments.device)  # the device that the Trainer uses
    optimizer = AgedAdam(model.parameters(), lr=1e-2, weight_decay=1e-2)  # AdamW would move grown weights too far
    steps = EPOCHS * -(-len(train) // BATCH)
    sparsifier = Sparsifier(
        model, optimizer, "schedule.interval_steps=50", method="gse", sparsity=0.9, backend="sparse", steps=steps
    )
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    trainer = Trainer(
        model, arguments, train_dataset=train, eval_dataset=test, optimizers=(optimizer, rate),
        compute_metrics=lambda found: {"accuracy": (found.predictions.argmax(1) == found.label_ids).mean()},
    )  # fmt: skip
    trainer.train()
    accuracy = trainer.evaluate()["eval_accuracy"]
    print(f"sparsity {sparsifier.sparsity:.3f}, accuracy {accuracy:.3f} on test after {sparsifier.step} steps")


if __name__ == "__main__":
    main()
