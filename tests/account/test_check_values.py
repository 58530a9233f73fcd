"""What ``dstrun plan`` counts agrees with what others counted (``benchmarks/check_values.py``)."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from dstrun.cli.help import options

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "check_values.py"

sys.path.insert(0, str(SCRIPT.parent))
spec = importlib.util.spec_from_file_location("check_values", SCRIPT)
assert spec is not None
assert spec.loader is not None
check_values = importlib.util.module_from_spec(spec)
sys.modules["check_values"] = check_values
spec.loader.exec_module(check_values)

CHECKS = check_values.checks()

HEADER = "dataset,model,method,allocation,settings,sparsity,metric,value,epochs,source,confidence\n"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.quantity)
def test_agrees_to_the_last_digit_printed(check):
    assert check.holds(), f"{check.ours()} where {check.source} has {check.published}"


def test_no_quantity_is_checked_twice():
    assert len({(check.quantity, check.source) for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    ("ours", "published", "holds"),
    [
        (0.2418, "0.2418", True),
        (0.2419, "0.2418", True),
        (0.2420, "0.2418", False),
        (0.24, "0.2418", False),
        (848_944, "848944", True),
        (848_945, "848944", False),
    ],
)
def test_a_check_holds_within_its_last_digit(ours, published, holds):
    assert check_values.Check("", lambda: ours, published, "").holds() is holds


def test_a_density_may_miss_by_one_connection_more():
    one = check_values.Check("", lambda: 0.0984, "0.0989", "", lambda: 1 / 640)
    assert one.holds()
    assert not check_values.Check("", one.ours, one.published, "").holds()


def test_published_rows_say_why_they_differ(tmp_path):
    table = tmp_path / "published.csv"
    rows = [
        "imagenet,resnet50,rigl,erk,,0.9,flops.train_x_dense,0.24,100,a,verified",
        "imagenet,resnet50,rigl,uniform,,0.8,flops.inference_x_dense,0.23,,a,verified",
        "imagenet,resnet50,set,uniform,,0.9,test_flops_ratio,0.1,,a,verified",
        "imagenet,resnet50,static,erk,,0.9,flops.inference_x_dense,0.77,,a,verified",
        "imagenet,resnet50,rigl,erk,,0.8,train_flops_ratio,2.09,500,a,verified",
        "imagenet,resnet50,dense,,,0,flops.inference,8200000000,,a,verified",
        "imagenet,resnet50,dense,,,0,accuracy.top1,76.8,,a,verified",
        "imagenet,resnet50,Small-Dense,,,0.9,flops.train_x_dense,0.12,,a,verified",
        "imagenet,resnet50,static,unknown,,0.9,flops.inference_x_dense,0.2,,a,verified",
        "imagenet,resnet50,static,erk,,0.9,flops.inference,1978000000,,a,verified",
        "cifar10,resnet56,rigl,erk,,0.9,flops.train_x_dense,0.5,,a,verified",
    ]
    table.write_text(HEADER + "\n".join(rows))
    found = check_values.published_rows(table)
    assert [row["reason"] for row in found] == [
        "", "bias and ReLU counted", "conv1 sparse too", "unexplained", "bias and ReLU counted", "",
    ]  # fmt: skip
    assert found[0]["ours"] == pytest.approx((302 * 0.24184 + 1) / 303, abs=1e-4)
    assert found[4]["ours"] == pytest.approx(5 * (302 * 0.41380 + 1) / 303, abs=1e-3)


def test_a_method_without_growth_is_counted_by_its_course(tmp_path):
    """Dense until 11,000 of 32,000 steps, then fewer every 1,000 until 25,000; the sum of i^3 up to 14 is 105^2."""
    table = tmp_path / "published.csv"
    rows = [
        "imagenet,resnet50,gmp,uniform,,0.8,flops.train_x_dense,0.56,,a,verified",
        "imagenet,resnet50,gmp,uniform,,0.9,flops.train_x_dense,0.51,,a,verified",
        "imagenet,resnet50,snip,uniform,scope=layer,0.8,flops.train_x_dense,0.22,,a,verified",
    ]
    table.write_text(HEADER + "\n".join(rows))
    found = check_values.published_rows(table)
    assert [row["reason"] for row in found] == ["pruned every step", "last digit", ""]
    for row, f in zip(found, (0.2231, 0.1260), strict=False):
        assert row["ours"] == pytest.approx((11 + 14 * f + (1 - f) * 105**2 / 15**3 + 7 * f) / 32, abs=1e-4)
    assert found[2]["ours"] == 0.2231


@pytest.mark.skipif("snfs" not in options("method"), reason="the method is not there")
def test_a_dense_weight_gradient_every_step(tmp_path):
    table = tmp_path / "published.csv"
    table.write_text(HEADER + "imagenet,resnet50,snfs,erk,,0.8,flops.train_x_dense,0.61,,a,verified")
    (found,) = check_values.published_rows(table)
    assert found["ours"] == pytest.approx((2 * 0.41380 + 1) / 3, abs=1e-4)
    assert found["reason"] == ""


def test_the_shipped_results_leave_nothing_unexplained():
    found = check_values.published_rows(check_values.shipped())
    assert len(found) == 62
    assert not [row for row in found if row["reason"] == "unexplained"]


def test_the_script_fails_where_a_value_does_not_hold(monkeypatch, capsys):
    wrong = check_values.Check("wrong", lambda: 2.0, "1.0", "nowhere")
    monkeypatch.setattr(check_values, "checks", lambda: [wrong])
    monkeypatch.setattr(sys, "argv", ["check_values.py", "--format", "json"])
    assert check_values.main() == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == [
        {"quantity": "wrong", "ours": 2.0, "published": 1.0, "difference": 1.0, "source": "nowhere"}
    ]
    assert "0 of 1" in err
