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
<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>
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
    browser = _unpacked()
    if not browser.program.exists():
        debian.unpack(PACKAGES, UNPACKED, title="Chromium")
        fonts = _FONTS.format(fonts=UNPACKED / "usr/share/fonts", cache=UNPACKED / "fonts-cache")
        (UNPACKED / "fonts.conf").write_text(fonts)
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
