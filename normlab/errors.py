"""Errors a user can mend: one line that says what, where, what was found and what is allowed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Bad input (parameters, data or model files); its message is a single line."""


@contextmanager
def exit_on_input_error(advice: str = "") -> Iterator[None]:
    """Turn an `InputError` into one line on standard error and exit code 1, Ctrl-C into 130.

    `advice` is a line of its own below.
    """
    try:
        yield
    except InputError as error:
        sys.exit(f"error: {error}" + (f"\n{advice}" if advice else ""))
    except KeyboardInterrupt:
        sys.exit(130)
