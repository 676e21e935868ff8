"""NumPy's and SciPy's linear algebra by one thread.

Many small problems, one after the other, gain a sixth by a second thread; beside two busy processes both threads of
OpenBLAS wait for one another and take half as long again (`benchmarks/bench_busy.py`), beside three trainings more
than ten times as long. With one, results do not depend on the number of cores, either.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits

one_thread = threadpool_limits.wrap(limits=1, user_api="blas")
"""Decorator of functions; torch keeps its threads."""
