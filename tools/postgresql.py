"""Install Debian's PostgreSQL for the tests that need a server if possible; otherwise print what to do, without failing.

python -m tools.postgresql
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "postgresql"
PROGRAMS = Path("/usr/lib/postgresql")
CLUSTERS = Path("/etc/postgresql-common/createcluster.conf")
"""The file that keeps Debian from starting a server on installation; the tests start their own."""


def main() -> None:
    """Install PostgreSQL if it is missing, the machine has apt-get and the user is root."""
    if programs() is not None:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print("no PostgreSQL server here: tests on it are skipped; install one, such as with `apt-get install postgresql`")
        return
    try:
        install()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"PostgreSQL could not be installed ({error}); tests on it are skipped", file=sys.stderr)


def programs() -> Path | None:
    """The folder of the newest installed server's programs; None if there is none."""
    packaged = sorted(PROGRAMS.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = packaged[-1] if packaged else shutil.which("initdb")
    return None if found is None else Path(found).parent


def install() -> None:
    """Install the package and its dependencies.

    Raises:
        subprocess.CalledProcessError: apt-get failed.
        OSError: the settings of the installation cannot be written.
    """
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print(f"installing {PACKAGE} for the tests on a PostgreSQL server, once")
    if not CLUSTERS.exists():
        CLUSTERS.parent.mkdir(parents=True, exist_ok=True)
        CLUSTERS.write_text("create_main_cluster = false\n")
    subprocess.run(["apt-get", "update", "--quiet=2"], check=True, env=quiet)
    options = ["--quiet=2", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"]
    subprocess.run(["apt-get", "install", *options, PACKAGE], check=True, env=quiet)


if __name__ == "__main__":
    main()
