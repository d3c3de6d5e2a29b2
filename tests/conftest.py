"""One thread a process: sums are added in one order, and test workers do not fight for the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported, which is after this
