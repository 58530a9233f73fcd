"""Rows as ``dstrun bench`` makes them, from made-up times."""

from __future__ import annotations

from typing import Any

from dstrun.bench.measure import rows

WHERE = {"threads": 2, "torch": "2.9.0", "processor": "A processor, model 1"}
PASSES = ("forward", "input gradient", "weight gradient")


def timed(seconds: float, factors: tuple[float, ...] = (1.0, 1.1, 0.9)) -> dict[str, list[float]]:
    return {key: [seconds * factor for factor in factors] for key in PASSES}


def kernel_rows() -> list[dict[str, Any]]:
    made = []
    for layer, implementations in (
        ("R56-s3", {"dense": 8e-3, "dense channels_last": 6e-3, "masked": 9e-3, "sparse": 2e-3}),
        ("4096-4096", {"dense": 5e-3, "masked": 9e-3, "torch coo": 4e-3, "torch csr": 3e-3, "sparse": 2e-3}),
    ):
        for sparsity, speed in ((0.9, 1.0), (0.995, 2.0)):
            times = {name: timed(t / speed if name == "sparse" else t) for name, t in implementations.items()}
            case = {"bench": "kernel", "layer": layer, "sparsity": sparsity, "batch": 128}
            made += [{**case, **row, "bytes": 1000, **WHERE} for row in rows(times)]
    return made


def linear_rows() -> list[dict[str, Any]]:
    """Square linear layers whose products take a nanosecond for each weight or, sparse, for each connection."""
    made = []
    for n in (256, 1024, 4096):
        for sparsity in (0.5, 0.9, 0.99):
            sparse = 1e-9 * n * n * (1 - sparsity)
            times = {"dense": 1e-9 * n * n, "torch coo": 4 * sparse, "torch csr": 2 * sparse, "sparse": sparse}
            case = {"bench": "kernel", "layer": f"{n}-{n}", "sparsity": sparsity, "batch": 128}
            found = rows({name: timed(seconds) for name, seconds in times.items()})
            made += [{**case, **row, "bytes": 1000, **WHERE} for row in found]
    return made


def step_rows() -> list[dict[str, Any]]:
    times = {"dense": {"step": [0.3, 0.3]}}
    times |= {name: {"step": [0.2, 0.2], "update": [0.5, 0.4]} for name in ("masked gse", "sparse gse")}
    case = {"bench": "step", "model": "resnet20", "sparsity": 0.95, "allocation": "er_fan_in", "batch": 128}
    return [{**case, **row, "bytes": 7_000_000, **WHERE} for row in rows(times, "sparse gse") if row["pass"] != "sum"]


def infer_rows() -> list[dict[str, Any]]:
    """Two networks whose dense passes take as long at any sparsity, and three times ours at 95 %."""
    made = []
    for network, seconds in (("1024-1024", 3e-3), ("resnet56", 3e-1)):
        for sparsity in (0.9, 0.95):
            for batch in (1, 128):
                sparse = seconds / 3 * (1 - sparsity) / 0.05
                times = {"dense": seconds, "onnxruntime": seconds / 2, "sparse": sparse}
                case = {"bench": "infer", "network": network, "sparsity": sparsity, "allocation": "erk", "batch": batch}
                found = rows({name: {"forward": [each, each]} for name, each in times.items()})
                made += [{**case, **row, **WHERE} for row in found]
    return made


def scaling_rows() -> list[dict[str, Any]]:
    made = []
    for n in (1024, 2048, 4096):
        case = {"bench": "scaling", "n": n, "degree": 128, "batch": 128, "active": 3 * 128 * n}
        times = {"masked": {"step": [1e-9 * n**2] * 2}, "sparse": {"step": [1e-6 * n] * 2}}
        for row in rows(times):
            size = 42 * n * n if row["implementation"] == "masked" else 9000 * n
            made.append({**case, **row, "bytes": size, "resident_bytes": size + 10**9, **WHERE})
    made[-2] = {**made[-2], "rounds": None, "bytes": None, "resident_bytes": None, "note": "not tried: too large"}
    return [{k: v for k, v in row.items() if k[-2:] not in ("q1", "q3", "an") or "note" not in row} for row in made]


def machine_rows() -> list[dict[str, Any]]:
    made = []
    for kilobytes, speed in ((16, 4e11), (4096, 2e11)):
        for name, part in (("read", 1), ("copy", 2)):
            row = {"implementation": name, "pass": name, "rounds": 2, "median": 1.0, "q1": 1.0, "q3": 1.0}
            made.append({"bench": "machine", "kilobytes": kilobytes, **row, "bytes": int(speed / part), **WHERE})
    row = {"implementation": "multiply-add", "pass": "multiply-add", "rounds": 2, "median": 2.0, "q1": 2.0, "q3": 2.0}
    return [*made, {"bench": "machine", "kilobytes": 0, **row, "bytes": 10**11, **WHERE}]
