"""The documentation: what is made from the code is what the code says, and links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deploy.command import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)?(#[^)\s]+)?\)")


def test_generated_pages_say_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate.py"), "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text()):
        if "://" in target:
            continue
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {target}{anchor}"


#: A command in an example or in a sentence, up to where the shell or the sentence goes on.
_COMMAND = re.compile(r"(?:`|^ {4,}(?:\$ |sudo )*)signalbox ([^`|;&>#\n]+)", re.M)


def commands_of(page: Path) -> Iterator[list[str]]:
    """The words after `signalbox` of every command that a page names; what is after -- is another's."""
    for found in _COMMAND.finditer(page.read_text().replace("\\\n", " ")):
        words = found[1].partition("$(")[0].split()
        yield words[: words.index("--")] if "--" in words else words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_pages_name_are_there_and_have_the_options(page: Path) -> None:
    wrong = []
    for words in commands_of(page):
        command, chosen, own = main, list[str](), {"-h", "--help"}
        for word in words:
            if not isinstance(command, click.Group) or word not in command.commands:
                break
            command = command.commands[word]
            chosen.append(word)
        if not chosen and words and not words[0].startswith("-"):
            wrong.append(" ".join(words))
        own |= {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        if "config" not in chosen:
            # `config show COMMAND` takes that command's options.
            options = (word.split("=")[0].rstrip(".,:)") for word in words if re.match(r"--?[a-zA-Z0-9]", word))
            wrong += [f"{' '.join(words)}: {option}" for option in options if option not in own]
    assert wrong == []


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    missing = [page.name for page in PAGES[1:] if str(page.relative_to(ROOT)) not in text]
    assert not missing
