"""Whether a config describes the model in a file, by the fields that the file decides, and which config does."""

from jaxseg.config import configs_folder, load_config

_SHOWN = 6


def merged(fields, further):
    """Nested dicts, the second over the first."""
    out = dict(fields)
    for name, value in further.items():
        out[name] = merged(out[name], value) if isinstance(value, dict) and isinstance(out.get(name), dict) else value
    return out


def differences(model, decided, prefix=""):
    """[(field, in the config, in the file)] of the fields that both have."""
    found = []
    for name, value in decided.items():
        if name not in model:
            continue
        if isinstance(value, dict):
            found += differences(model[name], value, f"{prefix}{name}.")
        elif _plain(model[name]) != _plain(value):
            found.append((prefix + name, _plain(model[name]), _plain(value)))
    return found


def _plain(value):
    return tuple(value) if isinstance(value, list | tuple) else value


def check_model(config, decided, free=()):
    """Notes about the fields in which a config may differ from a file.

    Args:
        decided: nested dict of the fields of `config.model` that the file decides.
        free: names of the fields that may differ.

    Raises:
        ValueError: one line with the fields that differ otherwise, and the config that fits.
    """
    found = differences(config.model, decided)
    wrong = [(field, *values) for field, *values in found if field not in free]
    if wrong:
        lines = [f"config.model.{field}: found {ours!r}, the file has {theirs!r}" for field, ours, theirs in wrong[:_SHOWN]]
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(f"{'; '.join(lines)}{more}; {_advice(config.system, decided, free)}")
    return [f"config.model.{field}: {ours!r} is used, the file says {theirs!r}" for field, ours, theirs in found]


def _advice(system, decided, free):
    names = fitting_configs(system, decided, free)
    return f"the config that fits: {', '.join(names)}" if names else "no released config fits"


def fitting_configs(system, decided, free=()):
    """Released configs of a system whose model is that of a file."""
    names = []
    for path in sorted(configs_folder().glob("*.py")):
        if path.stem in ("__init__", "common"):
            continue
        config = load_config(path)
        wrong = [d for d in differences(config.model, decided) if d[0] not in free] if config.system == system else [path]
        if not wrong:
            names.append(f"configs/{path.name}")
    return names
