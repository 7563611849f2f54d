"""The metrics of appendix A.1: equations (10) to (13), and Figure 6's total parameters. Operations may be in any one unit: all are ratios."""

from collections.abc import Sequence

from paperlib.errors import InputError
from paperlib.lets.workload import Workload


def new_operations(task: float, bert: float) -> float:
    """ops%(s_i), eq. (10): what a sub-task adds, in percent of one BERT."""
    _require_positive("ops(BERT)", bert)
    return 100 * task / bert


def new_operations_per_task(tasks: Sequence[float], bert: float) -> float:
    """Eq. (11): the mean of eq. (10) over the sub-tasks, in percent."""
    _require_tasks(len(tasks))
    return sum(new_operations(task, bert) for task in tasks) / len(tasks)


def total_operations(tasks: Sequence[float], overhead: float, bert: float) -> float:
    """Eq. (12): everything computed for all sub-tasks, in percent of one BERT.

    Equals N times eq. (11) plus the overhead in percent.
    """
    _require_tasks(len(tasks))
    return new_operations(sum(tasks) + overhead, bert)


def max_speedup(tasks: int, critical_path: float, bert: float) -> float:
    """Eq. (13): how many times faster than ``tasks`` whole BERTs one after another, with no limit on what runs in parallel."""
    _require_tasks(tasks)
    _require_positive("ops(critical path)", critical_path)
    return tasks * bert / critical_path


def total_parameters(tasks: Sequence[float], shared: float = 100.0) -> float:
    """Total parameters in percent of the pre-trained model: what is ``shared`` once, and what every sub-task adds.

    ``tasks``: percent that each adds. ``shared``: the whole pre-trained model, or 0 where every sub-task is a model of its own. Inferred: no
    equation is printed; the rule gives the totals that DiffPruning's paper prints for its baselines.
    """
    _require_tasks(len(tasks))
    return shared + sum(tasks)


def summary(work: Workload, bert: float) -> dict[str, float]:
    """All metrics of one workload; percent of ``bert`` operations, except ``max_speedup`` (a factor)."""
    tasks = [*work.new_operations.values()]
    return {
        "new_operations_per_task": new_operations_per_task(tasks, bert),
        "overhead": new_operations(work.overhead, bert),
        "total_operations": total_operations(tasks, work.overhead, bert),
        "critical_path": new_operations(work.critical_operations, bert),
        "max_speedup": max_speedup(len(tasks), work.critical_operations, bert),
    }


def _require_tasks(number: int) -> None:
    if number < 1:
        raise InputError("metrics: at least one sub-task is needed")


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"metrics: {name} must be positive, not {value}")
