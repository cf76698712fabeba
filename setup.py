"""
The compiled parts, which pyproject.toml can't describe: they are optional, and depend on who builds.

Each has a twin in Python that is used where it is missing. So nothing here may fail an installation: without Cython, on
another interpreter than CPython, or with PGBRIDGE_PURE set there are none, and the wheel fits every platform; without a
C compiler the build says so and goes on.
"""

import os
import sys

from setuptools import Extension, setup

MODULES = {
    "bridge.pgoutput._rows": "bridge/pgoutput/_rows.pyx",
    "bridge.source._copydata": "bridge/source/_copydata.pyx",
}


def extensions() -> list[Extension]:
    """What is to be compiled, as far as it can be tried."""
    # The extensions make tuples by CPython's own means; other interpreters would only imitate them, slowly.
    if os.environ.get("PGBRIDGE_PURE") or sys.implementation.name != "cpython":
        return []
    try:
        from Cython.Build import cythonize  # noqa: PLC0415 - it may be missing
    except ImportError:
        return []
    found = cythonize([Extension(name, [path]) for name, path in MODULES.items()], build_dir="build/cython", quiet=True)
    for extension in found:
        extension.optional = True
    return found


setup(ext_modules=extensions())
