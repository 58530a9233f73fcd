"""Run the command line as ``python -m dstrun``."""

from dstrun.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
