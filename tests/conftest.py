"""Test session: CPU with 8 simulated devices, cheap compiles, one persistent compilation cache that subprocesses inherit."""

import os
import tempfile

# Measured: unoptimised backend passes halve compile time; tests check values, not speed.
_FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "jaxseg-test-cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax  # noqa: E402  (after the environment is set)

jax.config.update("jax_numpy_rank_promotion", "raise")

_compiles = []


def _note(event, seconds, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        _compiles.append(seconds)


jax.monitoring.register_event_duration_secs_listener(_note)


def pytest_terminal_summary(terminalreporter):
    """The compile budget of docs/architecture.md is watched here."""
    terminalreporter.write_line(f"compiled {len(_compiles)} programs in {sum(_compiles):.0f} s")
