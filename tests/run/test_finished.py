"""Finding finished runs by what is typed."""

from __future__ import annotations

import pytest
from small_run import SMALL

from dstrun.config.composition import compose
from dstrun.run.finished import Facts, find, past
from dstrun.run.lifecycle import run
from dstrun.system.trouble import ConfigError


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    for words in (["seed=1"], ["seed=2"], ["seed=1", "epochs=2"]):
        run(compose([*SMALL, "epochs=1", "threads=1", f"results={folder}/results", *words]))
    return folder


@pytest.fixture(autouse=True)
def _there(results, monkeypatch) -> None:
    monkeypatch.chdir(results)


def test_by_folder_id_and_beginning(results):
    (folder,) = results.glob("results/default/*seed2*")
    for word in (
        str(folder),
        f"{folder}/",
        folder.name,
        "mlp-digits-gse-s0.8-seed2",
        f"{folder.parent}/mlp-digits-gse-s0.8-seed2",
    ):
        assert find(word).folder.name == folder.name, word


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("mlp-digits-gse-s0.8-seed1", r"may be any of 2 runs: write more of the id, or the folder \(results/default/"),
        ("mlp-digit-gse-s0.8-seed2", r"no id in results begins with it"),
        ("elsewhere/mlp", r"is not the folder of a run, and no id in elsewhere begins with it"),
        ("", r"is not the folder of a run"),
    ],
)
def test_what_is_no_run_is_said(word, sentence):
    with pytest.raises(ConfigError, match=sentence):
        find(word)


def test_a_run_that_has_not_finished_is_said(results):
    folder = results / "results" / "other" / "begun-seed3-0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "interrupted", "id": "begun-seed3-0123456789abcdef"}')
    with pytest.raises(ConfigError, match=r"has not finished \(it is interrupted\)"):
        find("begun")
    (folder / "record.json").write_text("{")
    with pytest.raises(ConfigError, match=r"record.json is damaged: not JSON"):
        find("begun")


def test_a_record_calls_nothing_that_a_run_would_not(results):
    record = dict(find("mlp-digits-gse-s0.8-seed2").record or {})
    facts = Facts((1, 8, 8), 10, None, (0.5,), (0.5,))
    assert past(record, facts).build("dataset") is facts
    record["config"] = record["config"] | {"model": {"_target_": "os.system", "command": "true"}}
    with pytest.raises(ConfigError, match=r"_target_=os\.system"):
        past(record, facts)
