"""Compiles the CNI plugin into the package, where there is a C compiler. All else is in pyproject.toml."""

import runpy
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

_PLUGIN = Path("node/cni/signalbox-cni")


class BuildWithPlugin(build_py):
    """The packages, and the plugin among the data of node.cni."""

    def run(self) -> None:
        """Build."""
        super().run()
        build = runpy.run_path("node/cni/build.py")
        # An editable installation runs the sources as they are, and nothing is built into those.
        if not self.editable_mode:
            try:
                build["compile_plugin"](Path(self.build_lib) / _PLUGIN)
            except build["BuildError"] as error:
                print(f"signalbox-cni is not compiled, plugin.py will serve: {error}", file=sys.stderr)


class WheelWithPlugin(bdist_wheel):
    """A wheel with the compiled plugin is this machine's; without it, it is everybody's."""

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3; this platform, if the plugin is in it."""
        compiled = (Path(self.bdist_dir) / _PLUGIN).exists()
        if not compiled:
            return super().get_tag()
        self.root_is_pure = False
        return ("py3", "none", super().get_tag()[2])


setup(cmdclass={"build_py": BuildWithPlugin, "bdist_wheel": WheelWithPlugin})
