"""Data sets, one file a family: an option class with ``load()`` that decodes once and caches."""
