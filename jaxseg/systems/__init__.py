"""The systems, found by name: a system is a folder with `task.py` (`make_task`) and `weights.py` (`FORMATS`)."""

import importlib


def make_task(config):
    """The `jaxseg.task.Task` of `config.system`."""
    return importlib.import_module(f"jaxseg.systems.{config.system}.task").make_task(config)


def formats(system):
    """The checkpoint layouts that a system reads and writes: a tuple of `jaxseg.weights.Format`."""
    return importlib.import_module(f"jaxseg.systems.{system}.weights").FORMATS
