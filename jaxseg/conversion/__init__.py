"""The parts of `--mode=convert`."""
