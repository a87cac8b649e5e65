"""The browser that tests look at pages with: Debian's Chromium, installed or unpacked.

Where none is installed, Debian's packages are downloaded and unpacked below ``.run/``.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import debian, programs
from deploy.local.programs import RUN_DIR

UNPACKED = RUN_DIR / "chromium"
PACKAGES = ("chromium", "chromium-common", "fonts-dejavu-core")
_SOUND = "usr/lib/*/pulseaudio"
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{root}/usr/share/fonts</dir> <dir>/usr/share/fonts</dir> <cachedir>{root}/cache</cachedir>
  <alias><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
</fontconfig>
"""


@dataclass(frozen=True)
class Browser:
    """A program, and the variables it needs."""

    program: Path
    environment: dict[str, str] = field(default_factory=dict)


def ensure() -> Browser:
    """Find a browser, downloading it first where there is none.

    Raises
    ------
    StackError
        It cannot be downloaded, or does not run on this machine.
    """
    installed = shutil.which("chromium")
    if installed:
        return Browser(Path(installed))
    mark = UNPACKED / "unpacked"
    if not mark.exists():
        debian.unpack(PACKAGES, UNPACKED, title="Chromium")
        mark.touch()
    browser = _unpacked()
    (UNPACKED / "fonts.conf").write_text(_FONTS.format(root=UNPACKED))
    failure = "Chromium was downloaded but does not run"
    programs.run([browser.program, "--version"], failure, env=browser.environment)
    return browser


def _unpacked() -> Browser:
    found = debian.environment(UNPACKED)
    # One library looks for another of its package in a folder of their own, below the root.
    libraries = [*found["LD_LIBRARY_PATH"].split(":"), *map(str, UNPACKED.glob(_SOUND))]
    variables = {
        **found,
        "LD_LIBRARY_PATH": ":".join(libraries),
        "HOME": str(UNPACKED),
        "FONTCONFIG_FILE": str(UNPACKED / "fonts.conf"),
    }
    return Browser(UNPACKED / "usr/lib/chromium/chromium", variables)
