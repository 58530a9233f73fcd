"""An interpreter that does not start one: what it is to run is forked by a server of ``fork_server``.

It is for those who start processes but are no children of the tests, as the daemons of SLURM. The forked process gets
its arguments, environment, folder and descriptors, and every signal that it can hand on; it ends as that one ends.
Killed, it takes the other with it.
"""

import marshal
import os
import select
import signal
import socket
import sys
from contextlib import suppress

FORWARDED = {
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT,
}  # fmt: skip


def stand_in(servers: list[str], args: list[str]) -> int:
    """Have a server fork a process, and return the status it ends with."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect("\0" + servers[os.getpid() % len(servers)])
        ended, theirs = os.pipe()
        asked = {
            "args": args, "env": {"OMP_NUM_THREADS": "1", **os.environ}, "cwd": os.getcwd(), "session": False,
            "stood_for": True,
        }  # fmt: skip
        socket.send_fds(connection, [marshal.dumps(asked)], [0, 1, 2, theirs])
        os.close(theirs)
        pid = int.from_bytes(os.read(ended, 8), "little")
        if not pid:
            sys.exit("the server has ended")
        arrived, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes)  # a handler alone would not run for a signal that comes just before a read
        for number in FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        while ended not in (ready := select.select([ended, arrived], [], [])[0]):
            for number in os.read(arrived, 1) if ready else b"":
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(pid, number)
        said = os.read(ended, 8)
        if not said:
            sys.exit("the server has ended")
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        return int.from_bytes(said, "little")


def end(status: int) -> None:
    """End as a process did."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    end(stand_in(sys.argv[1].split(","), sys.argv[2:]))
