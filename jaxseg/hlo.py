"""Reading compiled programs: collectives and the TPU compiler's cycle estimates from HLO text, loops multiplied out."""

import dataclasses
import math
import re

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}  # others: 4
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_BOUND = re.compile(r"^\s+ROOT .* compare\(%?([\w.\-]+), %?([\w.\-]+)\), direction=LT")
_CONSTANT = re.compile(r"^\s+%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_GROUPS = re.compile(r"replica_groups=(?:\[(\d+),(\d+)\]|\{\{([\d,]*)\})")


@dataclasses.dataclass
class Totals:
    """Of a whole program, on one chip.

    Attributes:
        collectives: {kind: [number of executions, bytes]}; bytes of the gathered or not yet reduced array.
        cycles: sum of the compiler's estimates, or None where the text has none. It leaves out gathers, sorts, scatters,
            collectives and custom kernels.
        unknown_loops: loops whose trip count is not in the text; they count once. Where it is not stated, it is the constant
            that the loop's counter is compared with: scans count from 0 by 1.
    """

    collectives: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    cycles: int | None = None
    unknown_loops: int = 0


def totals(text: str) -> Totals:
    """Adds up a module's text, from its entry computation on."""
    computations, entry = _computations(text)
    result = Totals(cycles=0 if _CYCLES.search(text) else None)
    if entry:
        _walk(computations, entry, 1, result)
    return result


def _computations(text):
    computations, current, entry = {}, None, None
    for line in text.splitlines():
        if not line.startswith(" ") and (match := _HEADER.match(line)):
            current = match[2]
            computations[current] = []
            entry = current if match[1] else entry
        elif current and " = " in line:
            computations[current].append(line)
    return computations, entry


def _walk(computations, name, times, result, only_collectives=False):
    for line in computations.get(name, ()):
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        shape, opcode = match.groups()
        if not only_collectives and result.cycles is not None and (cycles := _CYCLES.search(line)):
            result.cycles += times * int(cycles[1])
        kind = opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            entry = result.collectives.setdefault(kind, [0, 0])
            entry[0] += times
            entry[1] += times * _collective_bytes(kind, shape, line)
        if opcode == "while":
            trips = _trips(computations, line)
            result.unknown_loops += trips is None
            body = re.search(r"body=%?([\w.\-]+)", line)[1]
            _walk(computations, body, times * (1 if trips is None else trips), result, only_collectives)
        elif opcode == "conditional":
            for branch in re.findall(r"[\w.\-]+", (_BRANCHES.search(line) or [" ", ""])[1]):
                _walk(computations, branch, times, result, only_collectives)
        elif opcode in ("call", "fusion", "async-start") and (called := _CALLED.search(line)):
            # A fusion's own estimate covers what is inside of it.
            _walk(computations, called[1], times, result, only_collectives or opcode == "fusion")


def _trips(computations, line):
    """How often the loop of a line runs, or None."""
    if stated := _TRIPS.search(line):
        return int(stated[1])
    condition = computations.get((re.search(r"condition=%?([\w.\-]+)", line) or ["", ""])[1], ())
    constants = dict(match.groups() for text in condition if (match := _CONSTANT.match(text)))
    bounds = [constants.get(match[2]) for text in condition if (match := _BOUND.match(text))]
    return int(bounds[0]) if len(bounds) == 1 and bounds[0] else None


def _collective_bytes(kind, shape, line):
    sizes = [_BYTES.get(t, 4) * math.prod(int(n) for n in dims.split(",") if n) for t, dims in _SHAPE.findall(shape)]
    # An asynchronous start gives (operand, result); a combined collective gives a tuple of results.
    size = max(sizes, default=0) if "-start(" in line else sum(sizes)
    if kind == "reduce-scatter" and (groups := _GROUPS.search(line)):
        size *= int(groups[2]) if groups[2] else groups[3].count(",") + 1
    return size
