"""Checks of op arguments, made when a text is parsed."""


def positive(value, name):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: found {value!r}, expected a positive integer")
    return value


def pair(size, name):
    """(height, width) from one integer or two."""
    values = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(values) != 2:
        raise ValueError(f"{name}: found {size!r}, expected one integer or (height, width)")
    return positive(values[0], name), positive(values[1], name)


def share(value, name):
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}: found {value!r}, expected a number in [0, 1]")
    return value
