"""NumPy's and SciPy's linear algebra by one thread.

Many small problems, one after the other, gain nothing by more threads; beside busy processes two threads of OpenBLAS
wait for one another and take ten times as long (`benchmarks/bench_busy.py`). With one, results do not depend on the
number of cores, either.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits

one_thread = threadpool_limits.wrap(limits=1, user_api="blas")
"""Decorator of functions; torch keeps its threads."""
