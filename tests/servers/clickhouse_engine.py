"""The process of `ClickHouseServer`: `python clickhouse_engine.py LIBRARY ARGUMENT…` runs the engine until it ends."""

from __future__ import annotations

import ctypes
import sys


def _serve(arguments: list[str]) -> int:
    engine = ctypes.CDLL(arguments[0])
    texts = [argument.encode() for argument in arguments[1:]]
    argv = (ctypes.c_char_p * len(texts))(*texts)
    engine.chdb_query_cmdline.restype = ctypes.c_void_p
    return 0 if engine.chdb_query_cmdline(len(texts), argv) else 1


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1:]))
