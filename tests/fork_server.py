"""Processes of Python as ``subprocess`` starts them, except that they are forked from one that has imported PyTorch.

Importing takes a process four seconds. A server has done it, and nothing else: it has no thread, and none of this
project's modules, which every process imports anew. What it forks has arguments, environment, folder, descriptors,
signals and exit code of its own, as any process has. Two servers take turns, so that one process and the next differ in
what hangs on chance: hashes of strings, addresses. The workers of a session share them. A server imports when it is
first asked. ``fork_client`` starts such a process where no test is its parent.
"""

from __future__ import annotations

import atexit
import gc
import marshal
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from io import BufferedWriter, FileIO, TextIOWrapper
from itertools import count
from multiprocessing import util
from pathlib import Path
from typing import Any

IMPORTED = (
    *("torch", "torch._dynamo", "torch.utils.serialization", "torch.utils.flop_counter"),  # the last three at first use
    *("numba", "hydra", "hydra._internal.hydra", "sklearn.datasets"),
)
FIXED = ("OMP_NUM_THREADS", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUNBUFFERED", "NUMBA_CACHE_DIR")
"""What an interpreter or a library reads when it starts."""
PATHS = os.environ.get("PYTHONPATH", "")


class Server:
    """A process that forks others when it is asked to; it ends with the one that started it.

    Args:
        environment: in which it imports.
        name: at which clients and workers reach it.
    """

    def __init__(self, environment: dict[str, str], name: str) -> None:
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(f"\0{name}")  # in no folder
            listener.listen(100)
            given = [theirs.fileno(), listener.fileno()]
            self.process = subprocess.Popen(
                [sys.executable, __file__, *map(str, given)], env=environment, pass_fds=given, stdin=subprocess.DEVNULL
            )
        atexit.register(self.close)

    def close(self) -> None:
        """End it."""
        with self.connection, suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.process.wait()


class Servers:
    """The two servers of a session.

    Attributes:
        names: at which they are reached.
        environment: what they read of it when they start.
        shared: whether another process has started them.
    """

    def __init__(self) -> None:
        self.names = [f"fork-server-{os.getpid()}-{which}" for which in range(2)]
        self.environment: dict[str, str | None] = {}
        self.shared = False
        self._connections: list[socket.socket] = []
        self._turn = count()

    def start(self, environment: dict[str, str]) -> dict[str, Any]:
        """Start them; returns what ``join`` takes in another process."""
        if not self._connections:
            self.environment = {name: environment.get(name) for name in FIXED}
            self._connections = [Server(environment, name).connection for name in self.names]
        return {"names": self.names, "environment": self.environment}

    def join(self, names: list[str], environment: dict[str, str | None]) -> None:
        """Use those that another process has started, which outlive this one."""
        self.names, self.environment, self.shared = names, environment, True

    def connection(self, environment: dict[str, str]) -> socket.socket:
        """Return the way to the one whose turn it is, for a process in an environment."""
        if self.shared and not self._connections:
            for name in self.names:
                self._connections.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                self._connections[-1].connect("\0" + name)
        self.start(environment)
        assert self.environment == {name: environment.get(name) for name in FIXED}, "read before a process is forked"
        return self._connections[next(self._turn) % len(self._connections)]


SERVERS = Servers()
CLIENT = "FORK_CLIENT"
"""What tells a forked process by what interpreter it starts others."""


def client(folder: Path) -> Path:
    """Write the interpreter that stands for a forked process, and start the servers that it asks."""
    SERVERS.connection({**os.environ, "OMP_NUM_THREADS": "1"})
    made = folder / "python"
    words = [sys.executable, "-ISE", str(Path(__file__).with_name("fork_client.py")), ",".join(SERVERS.names)]
    made.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    made.chmod(0o755)
    return made


class Process(subprocess.Popen):
    """``subprocess.Popen`` of ``[sys.executable, "-m", MODULE, ...]`` or ``[sys.executable, SCRIPT, ...]``."""

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
        start_new_session, process_group,
    ) -> None:  # fmt: skip
        assert args[0] == sys.executable, args
        assert not any((preexec_fn, pass_fds, shell, uid, gid)), "not for these processes"
        env = dict(os.environ if env is None else env)
        env.setdefault("OMP_NUM_THREADS", "1")
        connection = SERVERS.connection(env)
        self._ended, theirs = os.pipe()
        streams = [own if own != -1 else number for number, own in enumerate((p2cread, c2pwrite, errwrite))]
        asked = {"args": list(map(os.fspath, args[1:])), "env": env, "cwd": os.fspath(cwd or os.getcwd())}
        try:
            asked |= {"session": start_new_session, "stood_for": False}
            socket.send_fds(connection, [marshal.dumps(asked)], [*streams, theirs])
        finally:
            os.close(theirs)
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        said = os.read(self._ended, 8)
        assert said, "the server has ended"
        self.pid, self._child_created = int.from_bytes(said, "little"), True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags and not select.select([self._ended], [], [], 0)[0]:
            return 0, 0
        said = os.read(self._ended, 8)
        assert said, "the server has ended"
        os.close(self._ended)
        return self.pid, int.from_bytes(said, "little")

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run(command: list[str], timeout: float | None = None, check: bool = False, **options: Any) -> Any:
    """Run a process to its end, as ``subprocess.run``."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Process(command, **options) as process:
        try:
            said = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, *said)
    if check:
        done.check_returncode()
    return done


def fork() -> int:
    """Fork, without the warning of threads: that of jemalloc comes again by itself."""
    with warnings.catch_warnings(action="ignore"):
        return os.fork()


def serve(parent: socket.socket, listener: socket.socket) -> dict[str, Any]:
    """Fork processes until the parent's end is closed; returns, in each of them, what it is to be.

    The process of a client is killed when the client has gone; those of a worker are not.
    """
    arrived, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended: dict[int, int] = {}
    clients: dict[socket.socket, int] = {}
    while True:
        ready, _, _ = select.select([parent, listener, arrived, *clients], [], [])
        if arrived in ready:
            os.read(arrived, 4096)
            for pid in list(ended):
                over, status = os.waitpid(pid, os.WNOHANG)
                if over:
                    with suppress(BrokenPipeError):
                        os.write(ended[pid], status.to_bytes(8, "little"))
                    os.close(ended.pop(pid))
        if listener in ready:
            clients[listener.accept()[0]] = 0
        for asking in [connection for connection in (parent, *clients) if connection in ready]:
            message, descriptors, _, _ = socket.recv_fds(asking, 1 << 20, 4)
            if not message:
                for one in [asking] if asking in clients else list(clients):
                    if (pid := clients.pop(one)) in ended:
                        os.killpg(pid, signal.SIGKILL)
                    one.close()
                if asking is parent:
                    os._exit(0)
                continue
            import_all()
            if (pid := fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for number, own in enumerate(descriptors[:3]):
                    os.dup2(own, number)
                for own in {arrived, wakes, *descriptors, *ended.values()}:
                    os.close(own)
                for own in (parent, listener, *clients):
                    own.close()
                return marshal.loads(message)
            if marshal.loads(message)["stood_for"]:
                clients[asking] = pid
                os.setpgid(pid, pid)
            with suppress(BrokenPipeError):
                os.write(descriptors[3], pid.to_bytes(8, "little"))
            ended[pid] = descriptors.pop()
            for own in descriptors:
                os.close(own)


@cache
def import_all() -> None:
    """Import what takes long, once."""
    for name in IMPORTED:
        import_module(name)
    target = import_module("numba.core.registry").cpu_target
    target.typing_context.refresh()  # what a first compiled function needs
    target.target_context.refresh()
    threads = {Path("/proc/self/task", thread, "comm").read_text().strip() for thread in os.listdir("/proc/self/task")}
    gc.freeze()
    assert len(threads - {"jemalloc_bg_thd"}) == 1, threads  # a process that is forked would lack others


def become(asked: dict[str, Any]) -> None:
    """Be the process that was asked for, up to its end."""
    assert all(os.environ.get(name) == asked["env"].get(name) for name in FIXED), "read before a process is forked"
    if asked["session"]:
        os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.executable = asked["env"].get(CLIENT, sys.executable)
    import numpy as np

    np.random.seed()
    unbuffered = asked["args"][0] == "-u"
    for number, name in enumerate(("stdout", "stderr"), 1):
        setattr(sys, name, reopened(number, getattr(sys, name), unbuffered))
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    ours = [str(Path(__file__).parent), *PATHS.split(os.pathsep)]
    sys.path[:] = [*given, *(path for path in sys.path if path not in ours)]
    util.spawnv_passfds = spawn  # pyright: ignore[reportAttributeAccessIssue]
    first, *rest = args = asked["args"][unbuffered:]
    if first == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(first).parent))
        sys.argv[:] = args
        runpy.run_path(first, run_name="__main__")


def reopened(number: int, stream: Any, unbuffered: bool) -> TextIOWrapper:
    """Return a stream as the interpreter opens it for a descriptor: the server's may think that it can seek."""
    raw, through = FileIO(number, "w", closefd=False), stream.write_through or unbuffered
    return TextIOWrapper(
        raw if through else BufferedWriter(raw), stream.encoding, stream.errors,
        line_buffering=number == 2 or os.isatty(number), write_through=through,
    )  # fmt: skip


def spawn(path: str, args: Sequence[Any], kept: Sequence[int], real: Any = util.spawnv_passfds) -> int:
    """Start a helper of ``multiprocessing``: the one from which processes are forked is forked, and imports nothing."""
    if "multiprocessing.forkserver" not in str(args[-1]):
        return real(path, args, kept)
    if pid := fork():
        return pid
    gc.freeze()  # nobody is to close what is closed here
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in kept:
            with suppress(OSError):
                os.close(number)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        exec(args[-1], {"__name__": "__main__"})
    except BaseException as error:
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
    finally:
        os._exit(0)


def end(error: BaseException | None) -> None:
    """End as the interpreter does, but for taking down what PyTorch is made of, which takes a second."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = 120
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    own = serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
    try:
        become(own)
    except BaseException as error:
        end(error)
    end(None)
