"""Draws many scenes with several processes.

`python -m input_pipeline.datasets.scenes.workers SPLIT FIRST STEP NUMBER SIZE` is one of them: it writes the features of
every STEP-th scene to its standard output, pickled.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator

import cv2

from input_pipeline.datasets.scenes.composition import draw_scene
from input_pipeline.datasets.scenes.storage import to_features

_MIN_PER_PROCESS = 200  # below that, starting a process takes longer than its share of the drawing
_MAX_PROCESSES = 16  # the one that stores cannot keep up with more


def draw_all(split: str, number: int, size: int, num_processes: int | None = None) -> Iterator[dict]:
    """Features of scenes 0 .. number - 1 of a split, in order.

    Args:
        num_processes: that draw; by default one per core, or this one alone where it is soon done.

    Raises:
        RuntimeError: a process ended early; what it said is on the standard error.
    """
    if num_processes is None:
        num_processes = max(1, min(len(os.sched_getaffinity(0)), _MAX_PROCESSES, number // _MIN_PER_PROCESS))
    if num_processes == 1:
        yield from (_draw(split, index, size) for index in range(number))
        return
    # commands, not multiprocessing: forking after JAX or TensorFlow may hang, and spawning would run the user's script again
    command = [sys.executable, "-m", "input_pipeline.datasets.scenes.workers", split]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    workers = [
        subprocess.Popen(
            [*command, *map(str, (first, num_processes, number, size))], stdout=subprocess.PIPE, env=environment
        )
        for first in range(num_processes)
    ]
    try:
        for index in range(number):
            try:
                yield pickle.load(workers[index % num_processes].stdout)
            except (EOFError, pickle.UnpicklingError) as error:
                raise RuntimeError(f"scenes: the process that draws {split}/{index:06d} ended early") from error
    finally:
        for worker in workers:
            worker.kill()
            worker.stdout.close()
            worker.wait()


def _draw(split: str, index: int, size: int) -> dict:
    return to_features(draw_scene(split, index, size), f"{split}/{index:06d}")


def _main() -> None:
    split, (first, step, number, size) = sys.argv[1], map(int, sys.argv[2:])
    cv2.setNumThreads(1)
    for index in range(first, number, step):
        pickle.dump(_draw(split, index, size), sys.stdout.buffer)


if __name__ == "__main__":
    _main()
