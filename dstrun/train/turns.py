"""Several runs in one process, a thread each: they take turns, and only the one that has its turn does anything.

A turn ends where a run would wait for the device (``pause``). What Python and PyTorch have once a process and a run
changes is put away then, and put back for its next turn: the descriptors of the log, and the default generators. So no
run can see that others are there, and nothing in it needs a lock. The CUDA stream and how many threads compute are a
thread's own; what else PyTorch has once a process, runs that share one agree on (``launcher/local.py``).
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

import torch

LOOK_SECONDS = 0.2
"""How often the main thread wakes: a signal that comes just before it falls asleep does not wake it."""

_here = threading.local()


def take_turns(parts: Sequence[Callable[[], None]]) -> None:
    """Call each of several functions in a thread of its own, and wait for all; Ctrl-C makes them leave at once."""
    turns = Turns(len(parts))
    threads = [threading.Thread(target=turns.take, args=(part, turns.wait(), Own()), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    turns.next()
    while turns.left:
        try:
            turns.ended.get(timeout=LOOK_SECONDS)
        except Empty:
            continue
        except KeyboardInterrupt:
            turns.leave = True
    for thread in threads:  # which Python would end in the middle of their last words
        thread.join()


def pause() -> None:
    """Wait while the other runs of this process have a turn each, where there are any.

    Raises:
        KeyboardInterrupt: all are to leave at once.
    """
    turns: Turns | None = getattr(_here, "turns", None)
    if turns is not None:
        turns.pause()


def together() -> int:
    """Return how many runs began in this process, to take turns; 1 where there are none."""
    turns: Turns | None = getattr(_here, "turns", None)
    return 1 if turns is None else turns.size


class Turns:
    """Says which run of this process has its turn; who has it alone changes anything here, but for ``leave``.

    Args:
        size: how many runs there are.
    """

    def __init__(self, size: int) -> None:
        self.size = self.left = size
        self.leave = False
        self.ended: SimpleQueue[None] = SimpleQueue()
        self._waiting: deque[threading.Semaphore] = deque()

    def wait(self) -> threading.Semaphore:
        """Stand in line; returns what is released when it is one's turn."""
        turn = threading.Semaphore(0)
        self._waiting.append(turn)
        return turn

    def next(self) -> None:
        """Pass the turn to who has waited longest."""
        if self._waiting:
            self._waiting.popleft().release()

    def take(self, part: Callable[[], None], turn: threading.Semaphore, own: Own) -> None:
        """Call a function, from its first turn to its last.

        Args:
            part: what the thread is there for.
            turn: its first.
            own: what it begins with.
        """
        turn.acquire()
        _here.turns = self
        try:
            own.cuda.clear()  # no two runs may share one
            own.put_back()
            part()
        finally:
            gc.collect()  # memory that is freed while another measures its own would count as the other's
            self.left -= 1
            self.ended.put(None)
            self.next()

    def pause(self) -> None:
        """Wait while each of the others has a turn."""
        if self._waiting:
            own, turn = Own(), self.wait()
            self.next()
            turn.acquire()
            own.put_back()
        if self.leave:
            raise KeyboardInterrupt


class Own:
    """What this process has once, as the run that has its turn has it now.

    Of a CUDA generator this is the state itself and not its numbers: a recorded graph reads them from there while it
    runs, which may be in another's turn.
    """

    def __init__(self) -> None:
        _flush()
        self.streams = [os.dup(number) for number in (1, 2)]
        self.numbers = torch.default_generator.get_state()
        self.cuda = [generator.graphsafe_get_state() for generator in torch.cuda.default_generators]

    def put_back(self) -> None:
        """Make it the process's again, once; a run that has not met CUDA yet gets states of its own there."""
        _flush()
        for number, kept in zip((1, 2), self.streams, strict=True):
            os.dup2(kept, number)
            os.close(kept)
        torch.default_generator.set_state(self.numbers)
        for i, generator in enumerate(torch.cuda.default_generators):  # none before CUDA is started
            generator.graphsafe_set_state(self.cuda[i] if self.cuda else generator.clone_state())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
