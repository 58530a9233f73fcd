"""The command line, where two more folders stand among the backends."""

import sys
from pathlib import Path

import dstrun.backend

dstrun.backend.__path__.append(str(Path(__file__).parent))

from dstrun.cli.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
