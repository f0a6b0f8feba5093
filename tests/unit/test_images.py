"""The images' recipes: their steps can be read, and what they copy is let through to the build."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deploy.kubernetes.manifest import IMAGE, OVS_IMAGE

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy/images"
RECIPES = sorted(IMAGES.glob("Containerfile.*"))


def rehearsal() -> Any:
    """deploy/images/rehearse.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("rehearse", IMAGES / "rehearse.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def let_through() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line[1:] for line in lines if line.startswith("!")]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_has_only_steps_that_can_be_rehearsed(recipe: Path) -> None:
    steps = list(rehearsal().steps(recipe.read_text()))
    assert steps[0][0] == "FROM" and steps[-1][0] == "ENTRYPOINT"
    assert {word for word, _ in steps} <= {"FROM", "RUN", "COPY", "ENV", "USER", "ENTRYPOINT"}
    for word, rest in steps:
        if word == "FROM":
            assert rest.startswith("debian:bookworm-slim")
        if word == "RUN":
            assert subprocess.run(["sh", "-n", "-c", rest], check=False).returncode == 0, rest
        if word == "COPY" and not rest.startswith("--from=") and rest.split()[0] != ".":
            source = rest.split()[0]
            assert (ROOT / source).exists() and source.split("/")[0] in let_through()


def test_all_that_is_installed_is_let_through_to_the_build() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {package.split(".")[0] for package in project["tool"]["setuptools"]["packages"]}
    needed |= {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert needed <= set(let_through())


def test_the_recipes_say_the_names_that_manifests_have() -> None:
    assert {re.search(r"-t (\S+)", recipe.read_text())[1] for recipe in RECIPES} == {IMAGE, OVS_IMAGE}  # type: ignore[index]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert IMAGE.endswith(f":{version}")


@pytest.mark.parametrize("words", [[], ["something"]])
def test_the_switch_s_image_says_what_it_can_run(words: list[str]) -> None:
    script = IMAGES / "openvswitch"
    assert script.stat().st_mode & 0o111
    done = subprocess.run([str(script), *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "openvswitch: say 'database' or 'switch'\n")
