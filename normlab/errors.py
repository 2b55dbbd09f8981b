"""Errors a user can mend: one line that says what, where, what was found and what is allowed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Bad input (parameters, data or model files); its message is a single line."""


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn an `InputError` into one line on standard error and exit code 1, Ctrl-C into 130."""
    try:
        yield
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
