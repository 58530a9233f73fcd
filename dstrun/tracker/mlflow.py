"""A run in MLflow: the only module that imports mlflow, and only where it is used.

It goes where ``MLFLOW_TRACKING_URI`` says, else into files, ``mlruns`` under the folder of results, as a run of the
experiment that ``MLFLOW_EXPERIMENT_NAME`` names, else of dstrun's own.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dstrun.record import sealed
from dstrun.system.reach import PATIENCE, reachable
from dstrun.system.trouble import ConfigError
from dstrun.tracker.page import Page, Table, leaves
from dstrun.tracker.protocol import Tracker, need

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # else a server that has gone holds training up for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
"""What mlflow is told unless the user has."""

PARAMETER_LENGTH = 500
"""Letters of a parameter that every store takes."""

AT_ONCE = 100
"""Parameters in one request."""


class Mirror(Tracker):
    """A run in MLflow; ``mlflow.json`` in its folder says which, so that another start continues it."""

    def __init__(self, client: Any, run: str, continued: bool) -> None:
        self._client, self._run = client, run
        steps = [metric.step for metric in client.get_metric_history(run, "epoch")]
        self.next = max(steps, default=-1) + 1
        self._continued = continued

    @staticmethod
    def decide(config: Mapping[str, Any]) -> tuple[str, str]:
        """Check that MLflow is installed and its server, where there is one, can be reached."""
        need("mlflow", "mlflow", "mlflow-skinny")
        uri = _uri(config)
        if not uri.startswith("http"):
            return "offline", uri
        if not reachable(uri):
            raise ConfigError(f"tracker=mlflow finds no connection to MLFLOW_TRACKING_URI={uri} within {PATIENCE:g} s")
        return "online", uri

    @classmethod
    def open(cls, mode: str, folder: Path, page: Page) -> Mirror:
        """Start to show a run with its configuration as parameters, or continue."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        uri = _uri(page.config)
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        from mlflow import MlflowClient
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        with _alone(Path(page.config["results"])):
            client = MlflowClient(uri)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or page.config["experiment"]
            found = client.get_experiment_by_name(name)
            within = client.create_experiment(name) if found is None else found.experiment_id
        note, run = folder / "mlflow.json", None
        before = sealed.read_if_whole(note) or {}
        if before.get("uri") == uri:
            with suppress(MlflowException):  # it has been deleted
                run = client.get_run(before["run"])
                client.update_run(run.info.run_id, status="RUNNING")
        continued = run is not None
        if run is None:
            tags = {"group": page.group, "tags": ",".join(page.tags)}
            run = client.create_run(within, run_name=page.id, tags=tags)
            sealed.write(note, {"uri": uri, "run": run.info.run_id})
        told = [Param(key, str(value)[:PARAMETER_LENGTH]) for key, value in leaves(page.config, ".")]
        told = [param for param in told if param.key not in run.data.params]
        for start in range(0, len(told), AT_ONCE):
            client.log_batch(run.info.run_id, params=told[start : start + AT_ONCE])
        return cls(client, run.info.run_id, continued)

    def log(self, values: dict[str, Any], step: int) -> None:
        """Send the numbers of a step, ``epoch`` last: with it the step is whole."""
        if self._continued:  # the process before may have been killed while it sent this step
            values = {key: value for key, value in values.items() if not self._has(key, step)}
            self._continued = False
        self._send({key: values[key] for key in sorted(values, key="epoch".__eq__)}, step)

    def finish(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        """Send final numbers as metrics of the last step, words as tags, tables as CSV files, and end the run."""
        numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
        self._send(numbers, max(0, self.next - 1))
        for key, value in summary.items():
            if isinstance(value, Table):
                self._client.log_text(self._run, _csv(value), f"{key}.csv")
            elif key not in numbers:
                self._client.set_tag(self._run, key, str(value))
        stopped = "KILLED" if summary.get("state") == "interrupted" else "FAILED"
        self._client.set_terminated(self._run, "FINISHED" if exit_code == 0 else stopped)

    def _send(self, values: dict[str, Any], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(key, float(x), now, step) for key, x in values.items()])

    def _has(self, key: str, step: int) -> bool:
        """Return whether a number of a step is there."""
        return any(metric.step == step for metric in self._client.get_metric_history(self._run, key))


def _uri(config: Mapping[str, Any]) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or Path(config["results"], "mlruns").absolute().as_uri()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep runs that start together from making one experiment twice; where folders cannot be locked, hope."""
    number = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _csv(table: Table) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.columns, *table.rows])
    return text.getvalue()
