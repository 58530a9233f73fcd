"""Words of a run that takes a second."""

SMALL = ("model=mlp", "dataset=digits", "wandb=disabled", "sparsity=0.8", "epochs=3", "optimizer.lr=0.05")
