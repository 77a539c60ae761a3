"""A believable company that sends telemetry, with known incidents: for the demo, the tests and the benchmarks."""

from flows.simulate.company import Company
from flows.simulate.incidents import Planned, decode_truth, encode_truth, read_truth
from flows.simulate.run import DEFAULT_START, Minute, planned_incidents, run_simulate, simulate, write

__all__ = [
    "DEFAULT_START",
    "Company",
    "Minute",
    "Planned",
    "decode_truth",
    "encode_truth",
    "planned_incidents",
    "read_truth",
    "run_simulate",
    "simulate",
    "write",
]
