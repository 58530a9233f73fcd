"""One file per verb of the command line, found by its name: its arguments and what it prints.

Each has ``main(words) -> exit code`` and ``HELP``, its lines in ``dstrun help all``: by their place there, the words
without ``dstrun`` and what they do, as literals.
"""

from pkgutil import iter_modules

VERBS = tuple(module.name for module in iter_modules(__path__))
