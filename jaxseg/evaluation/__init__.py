"""The parts of `--mode=eval`: the compiled step, pictures, the table of results."""
