"""Toy runs in processes of their own, which a test strikes at a moment that they announce."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds; beyond them a process is killed and its test fails


class Process:
    """`python -m tests.faults.toy`, on one device.

    Args:
        workdir: of the run.
        options: of `toy.main`.
        environment: further variables.
    """

    def __init__(self, workdir, options, **environment):
        flags = re.sub(r"device_count=\d+", "device_count=1", os.environ.get("XLA_FLAGS", ""))
        command = [sys.executable, "-m", "tests.faults.toy", str(workdir), json.dumps(options)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines, self._errors = [], []
        self._reader = threading.Thread(target=lambda: self._errors.extend(self._process.stderr), daemon=True)
        self._reader.start()
        self._alarm = threading.Timer(PATIENCE, self._process.kill)
        self._alarm.daemon = True
        self._alarm.start()

    def wait_for(self, moment):
        """Reads until a line of stdout is `moment` or starts with it and a space."""
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if f"{self.lines[-1]} ".startswith(f"{moment} "):
                return self.lines[-1]
        raise AssertionError(f"the process ended before {moment!r}:\n{self.lines[-5:]}\n{self.errors()}")

    def send(self, number):
        self._process.send_signal(number)

    def kill(self):
        self.send(signal.SIGKILL)
        return self.finish()

    def finish(self):
        """The exit status, when it has ended."""
        self.lines += [line.rstrip("\n") for line in self._process.stdout]
        status = self._process.wait()
        self._alarm.cancel()
        self._reader.join()
        return status

    def errors(self):
        """stderr, of a process that has ended."""
        self._process.wait()
        self._reader.join()
        return "".join(self._errors)

    def last_step(self):
        """The last step whose batch was handed out."""
        return max(int(line.split()[1]) for line in self.lines if line.startswith("step "))


def cluster(workdir, options, num_processes=2):
    """The processes of one distributed run on this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(num_processes)}
    return [Process(workdir, options, JAX_PROCESS_ID=str(i), **common) for i in range(num_processes)]


def steps_of(workdir):
    """Complete steps of a run, oldest first."""
    folder = Path(workdir) / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal()) if folder.is_dir() else []


def stored_arrays(workdir, step):
    """{item: {path: [shape, dtype, checksum]}} of a checkpoint."""
    return json.loads((Path(workdir) / "checkpoints" / str(step) / "meta" / "metadata").read_text())["arrays"]
