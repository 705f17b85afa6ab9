"""A small good case, and ways to spoil it."""

import copy

GOOD = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 8},
        "depth": {"length": 1.0, "cells": 4},
    },
    "data": {"inputs": ["x[0]", "1"], "targets": ["0", "x[0]**2"]},
}


def changed(**values):
    """The good case with other values at keys like mesh__width__cells; None removes."""
    tables = copy.deepcopy(GOOD)
    for key, value in values.items():
        *sections, last = key.split("__")
        table = tables
        for section in sections:
            table = table.setdefault(section, {})
        if value is None:
            del table[last]
        else:
            table[last] = value
    return tables
