"""Are there packages for this Python on this machine? Says so in one line if not.

`make install` runs this before anything else, with whatever Python it has been given. It has no
syntax that an old one cannot read, so that a person is told which Pythons will do.
"""

import platform
import sys

# What `requirements.lock` was resolved for. CI tests each of these Pythons.
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
SYSTEMS = ["Linux x86_64", "Linux aarch64", "Darwin arm64"]

python = ".".join(platform.python_version_tuple()[:2])
if platform.python_implementation() != "CPython":
    python = platform.python_implementation() + " " + python
if python not in PYTHONS:
    sys.exit(
        "error: " + sys.executable + " is Python " + python + ", "
        "allowed: " + PYTHONS[0] + " to " + PYTHONS[-1] + " (make PYTHON=...)"
    )

system = platform.system() + " " + platform.machine()
if system.startswith("Linux") and platform.libc_ver()[0] != "glibc":
    system += " without glibc"
if sys.maxsize < 2**32:
    system += " with a Python of 32 bits"
if system not in SYSTEMS:
    sys.exit(
        "error: there are no packages for " + system + ", "
        "allowed: " + ", ".join(SYSTEMS[:-1]) + " or " + SYSTEMS[-1] + " (macOS)"
    )
