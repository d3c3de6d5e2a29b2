"""Install Debian's chromium for the browser tests if possible; otherwise print what to do, without failing.

python -m tools.chromium
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
PACKAGES = ("chromium", "fonts-dejavu-core")
OS_RELEASE = Path("/etc/os-release")


def main() -> None:
    """Install chromium if it is missing, the machine runs Debian and the user is root."""
    if os.environ.get("D3PO_CHROMIUM") or any(shutil.which(name) for name in NAMES):
        return
    if not is_debian() or os.geteuid() != 0 or shutil.which("apt-get") is None:
        print("no Chromium here: browser tests are skipped; install one, or name it in D3PO_CHROMIUM")
        return
    try:
        install()
    except subprocess.CalledProcessError as error:
        print(f"Chromium could not be installed ({error}); browser tests are skipped", file=sys.stderr)


def is_debian() -> bool:
    """Whether apt-get offers Debian's chromium package here; Ubuntu's package only installs a snap."""
    return OS_RELEASE.is_file() and "ID=debian" in OS_RELEASE.read_text().splitlines()


def install() -> None:
    """Install the packages and their dependencies.

    Raises:
        subprocess.CalledProcessError: apt-get failed.
    """
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print(f"installing {' '.join(PACKAGES)} for the browser tests, once")
    subprocess.run(["apt-get", "update", "--quiet=2"], check=True, env=quiet)
    subprocess.run(["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *PACKAGES], check=True, env=quiet)


if __name__ == "__main__":
    main()
