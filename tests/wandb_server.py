"""A stand-in for W&B's server on this machine, which answers what wandb asks and keeps what it sends of each run.

It shows what arrives and where in a run's history wandb puts it; how W&B itself stores that, nobody can test here.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Runs by id: ``config``, ``groupName``, ``tags``, ``history``, ``summary`` and, once finished, ``exitcode``.

    Ids in ``deleted`` are refused, as W&B refuses them; while ``full`` no numbers are taken.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        self.full = False


class Answers(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/graphql":
            asked = json.loads(body)
            name = asked["query"].replace("(", " ").split()[1]
            self.answer(*getattr(self, name, lambda _: ({"data": {}},))(asked.get("variables")))
        elif self.path.endswith("/file_stream"):
            self.answer(*self.take(self.path.split("/")[-2], json.loads(body)))
        else:
            self.answer({})

    do_PUT = do_POST

    def answer(self, value: dict[str, Any], code: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def take(self, name: str, sent: dict[str, Any]) -> tuple[Any, ...]:
        if self.server.full:
            return {"error": "full"}, 500
        run = self.server.runs[name]
        for file, part in (sent.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]]
            if file == "wandb-history.jsonl":
                run["history"][part["offset"] : part["offset"] + len(lines)] = lines
            elif file == "wandb-summary.json":
                run["summary"] = lines[-1]
        if sent.get("complete"):
            run["exitcode"] = sent["exitcode"]
        return ({},)

    def UpsertBucket(self, asked: dict[str, Any]) -> tuple[Any, ...]:
        name = asked["name"]
        if name in self.server.deleted:
            return {"errors": [{"message": f"run {name} was previously created and deleted; try a new run name"}]}, 409
        run = self.server.runs.setdefault(name, {"history": [], "summary": {}})
        run |= {key: asked[key] for key in ("groupName", "tags") if asked.get(key)}
        run |= {"project": asked["project"], "config": {k: v["value"] for k, v in json.loads(asked["config"]).items()}}
        bucket = self.bucket(name) | {"project": {"name": asked["project"], "entity": {"name": "me"}}}
        return ({"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}},)

    def RunResumeStatus(self, asked: dict[str, Any]) -> tuple[Any, ...]:
        project = {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": "me"}}
        return ({"data": {"model": project | {"bucket": self.bucket(asked["name"])}}},)

    def CreateRunFiles(self, asked: dict[str, Any]) -> tuple[Any, ...]:
        files = [{"name": name, "uploadUrl": f"{self.server.url}/upload"} for name in asked["files"]]
        return ({"data": {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}},)

    def Viewer(self, asked: dict[str, Any]) -> tuple[Any, ...]:
        empty = {"edges": []}
        me = {"id": "u", "entity": "me", "username": "me", "name": "me", "email": None, "admin": False, "flags": "{}"}
        return ({"data": {"viewer": me | {"teams": empty, "apiKeys": empty, "deletedAt": None}}},)

    def ArtifactType(self, asked: dict[str, Any]) -> tuple[Any, ...]:
        return ({"data": {"project": None}},)

    def CreateArtifact(self, asked: dict[str, Any]) -> tuple[Any, ...]:
        artifact = {"id": "a", "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
        return ({"data": {"createArtifact": {"artifact": artifact}}},)

    def CreateArtifactManifest(self, asked: dict[str, Any]) -> tuple[Any, ...]:
        manifest = {"id": "m", "file": self.file("manifest")}
        return ({"data": {"createArtifactManifest": {"artifactManifest": manifest}}},)

    def CreateArtifactFiles(self, asked: dict[str, Any]) -> tuple[Any, ...]:
        more = {"storagePath": "x", "artifact": {"id": "a"}}
        nodes = [{"node": self.file(file["name"]) | more} for file in asked["input"]["artifactFiles"]]
        return ({"data": {"createArtifactFiles": {"files": {"edges": nodes}}}},)

    def CommitArtifact(self, asked: dict[str, Any]) -> tuple[Any, ...]:
        return ({"data": {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}}},)

    def file(self, name: str) -> dict[str, Any]:
        where = {"uploadUrl": f"{self.server.url}/upload", "uploadHeaders": []}
        return {"id": name, "name": name, "displayName": name, **where}

    def bucket(self, name: str) -> dict[str, Any] | None:
        run = self.server.runs.get(name)
        return run and {
            "id": name, "name": name, "displayName": name, "tags": run.get("tags", []), "wandbConfig": '{"t": 1}',
            "config": json.dumps({key: {"value": value} for key, value in run["config"].items()}),
            "summaryMetrics": json.dumps(run["summary"]), "historyLineCount": len(run["history"]),
            "historyTail": json.dumps([json.dumps(line) for line in run["history"][-1:]]),
            "eventsLineCount": 0, "eventsTail": "[]", "logLineCount": 0,
        }  # fmt: skip


@contextmanager
def serving() -> Iterator[Server]:
    """Run the server in a thread."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
