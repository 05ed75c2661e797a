"""Process start: several hosts, numeric precision, logging."""

import logging
import os
import sys

import jax

from jaxseg.config import validate


def start(config, *, distributed="auto"):
    """Connects the processes of a run and sets what holds for the whole process. Call before anything uses a device.

    Args:
        distributed: "auto" joins a cluster where one is found (TPU pods, SLURM, GKE, Open MPI, or the variables
            JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID), "on" insists on one, "off" looks for none.

    Raises:
        ValueError: no cluster was found and `distributed` is "on"; or the config does not fit the devices.
    """
    start_logging()
    if distributed != "off":
        _connect(insist=distributed == "on")
    jax.config.update("jax_default_matmul_precision", config.precision.matmul)
    validate(config, device_count=jax.device_count())
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    logging.info("%s, process %d of %d", devices, jax.process_index(), jax.process_count())


def _connect(insist):
    given = {
        "num_processes": os.environ.get("JAX_NUM_PROCESSES"),
        "process_id": os.environ.get("JAX_PROCESS_ID"),
    }
    try:
        jax.distributed.initialize(**{name: int(value) for name, value in given.items() if value})
    except ValueError as error:
        # A plain single host: JAX finds no coordinator. Everything else that can go wrong is a real failure.
        if insist or any(given.values()):
            raise ValueError(f"--distributed: no cluster was found ({str(error).splitlines()[0]})") from None


def start_logging():
    """Plain lines on stderr; the first process speaks for all."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s", force=True)
    for noisy in ("orbax", "absl", "jax", "etils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def is_first_process():
    return jax.process_index() == 0
