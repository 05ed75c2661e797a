"""What Orbax and TensorStore print beside the exception that they raise: tracebacks of every thread that failed with it.

jaxseg reports each failure itself, in one line; the tracebacks are in the debug log.
"""

import logging
import os
import sys

_done = []


def silence():
    """Drops these tracebacks from now on; everything else is printed as before."""
    if _done:
        return
    _done.append(True)
    logging.getLogger("absl").addFilter(_is_wanted)
    logging.getLogger("asyncio").addFilter(lambda record: "was never retrieved" not in record.getMessage())
    previous = sys.unraisablehook

    def hook(unraisable):
        if "Event loop is closed" not in str(unraisable.exc_value):
            previous(unraisable)

    sys.unraisablehook = hook


def _is_wanted(record):
    from_orbax = f"{os.sep}orbax{os.sep}" in record.pathname
    return not (from_orbax and record.levelno >= logging.ERROR)
