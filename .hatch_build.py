# SPDX-FileCopyrightText: 2026 the memformats authors
# SPDX-License-Identifier: MIT
"""Adds the types to the wheel: a package of stubs that is the module itself under another name.

A single module cannot carry the mark (``py.typed``) by which type checkers take the annotations of an installed file.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface[Any]):
    """hatchling takes one source to one place only, so the second place gets a copy."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Give the builder a copy of the module to put beside it."""
        self.scratch = Path(tempfile.mkdtemp())
        copy = shutil.copyfile(Path(self.root, "memformats.py"), self.scratch / "memformats.pyi")
        build_data["force_include"][str(copy)] = "memformats-stubs/__init__.pyi"

    def finalize(self, _version: str, _build_data: dict[str, Any], _artifact_path: str) -> None:
        """Remove the copy."""
        shutil.rmtree(self.scratch)
