"""`python -m tools.processors [PYTEST ARGUMENT ...]` runs the tests as other processors would: `make test-portable`.

The order of floating-point sums depends on the processor's features, which a library checks when it is loaded, and on the number of threads. torch, oneDNN
and MKL each read an environment variable that restricts them to fewer features.
"""

import os
import subprocess
import sys
from pathlib import Path

CPU = Path("/proc/cpuinfo")
PROCESSORS = {
    "without vectors": (
        "",
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1"},
    ),
    "AVX2": ("avx2", {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "1"}),
    "AVX-512": (
        "avx512f",
        {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_CBWR": "AVX512", "OMP_NUM_THREADS": "1"},
    ),
    "this one, four threads": ("", {"OMP_NUM_THREADS": "4"}),
}
"""The processors to imitate, by name: the feature that this machine must have, as /proc/cpuinfo names it, and the environment variables."""
SET = {key for _, variables in PROCESSORS.values() for key in variables}
"""Variables that are removed from the environment unless a processor sets them."""


def main(*arguments: str) -> int:
    """Run the tests as each of the processors, and return on how many they failed."""
    failed: list[str] = []
    for name, (feature, variables) in PROCESSORS.items():
        said = " ".join(f"{key}={value}" for key, value in variables.items())
        if feature and not has(feature):
            print(f"{name}: left out, this machine lacks {feature}", flush=True)
            continue
        print(f"{name}: {said}", flush=True)
        environment = {key: value for key, value in os.environ.items() if key not in SET} | variables
        result = subprocess.run([sys.executable, "-m", "pytest", *arguments], env=environment, check=False)
        if result.returncode:
            failed.append(name)
    print(f"the tests fail on: {', '.join(failed)}" if failed else "the tests pass on every processor tried")
    return len(failed)


def has(feature: str) -> bool:
    """Whether this machine's processor has a feature; False if /proc/cpuinfo does not exist."""
    return CPU.is_file() and any(feature in line.split() for line in CPU.read_text().splitlines() if line.startswith("flags"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
