"""The optional extension: the native core. Everything else about the package is in pyproject.toml."""

import sys
from hashlib import sha256
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

CORE = Path("stream/native/src")
FILES = sorted(path for path in CORE.rglob("*") if path.suffix in (".cpp", ".h"))
DIGEST = sha256(b"".join(path.read_bytes() for path in FILES)).hexdigest()


class OptionalBuild(build_ext):
    """Builds the extension, or says in one line what its absence costs."""

    def build_extension(self, ext: Extension) -> None:
        """Build it; a machine without a compiler gets the program without it."""
        try:
            super().build_extension(ext)
        except (CCompilerError, ExecError, PlatformError):
            # What the compiler said stands above.
            sys.stderr.write(
                "prectr: the native core was not built, so the stages run in Python, at a third of the speed; "
                "with a C++20 compiler (Debian: apt install g++ python3-dev), install again\n"
            )


setup(
    cmdclass={"build_ext": OptionalBuild},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    ext_modules=[
        Extension(
            "prectr.stream.native.core",
            [str(path) for path in FILES if path.suffix == ".cpp"],
            include_dirs=[str(CORE)],
            depends=[str(path) for path in FILES],
            define_macros=[("PRECTR_SOURCES", f'"{DIGEST}"')],
            # No -march and no -ffast-math: the result is the same on every machine.
            extra_compile_args=["-std=c++20", "-O2", "-g0", "-fvisibility=hidden", "-ffp-contract=off"],
            language="c++",
            py_limited_api=True,
            optional=True,
        )
    ],
)
