"""One of two halves: ``_async`` is written by hand, ``_sync`` is made of it when the package is built."""
