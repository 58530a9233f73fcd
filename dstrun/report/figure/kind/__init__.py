"""One file a kind of figure, found by its name: each has ``PRESET``, and is drawn by ``dstrun plot NAME``."""
