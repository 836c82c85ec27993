"""Every code block of the documentation runs.

* A ```python block runs in its page's namespace; one that begins with ``# name.py`` is written to that file instead.
* A ```toml block begins with ``# name.toml`` and is written to that file.
* In a ```console block, lines after ``$`` are commands; what follows one is what it prints (``…`` stands for anything).

All pages share the files, and each page runs in a folder of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"cli.md", "errors.md"}  # tested with the command line
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in ELSEWHERE]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w-]+\.(?:py|toml))\n")


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """(language, text, line) of each fenced block."""
    text = page.read_text(encoding="utf-8")
    return [(m[1], m[2], text.count("\n", 0, m.start()) + 2) for m in BLOCK.finditer(text)]


def is_file(text: str) -> bool:
    return FILE_NAME.match(text) is not None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file that a page shows."""
    for page in PAGES:
        for _, text, _ in blocks(page):
            if (name := FILE_NAME.match(text)) is not None:
                (tmp_path / name[1]).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_console(text: str, folder: Path, where: str) -> None:
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]), "COLUMNS": "120", "NO_COLOR": "1"}
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{where}: $ {command}\n{done.stdout}{done.stderr}"
        if expected.strip():
            pattern = re.escape(expected.strip()).replace("…", ".*")
            assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), f"{where}: $ {command} printed\n{done.stdout}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page: Path, folder: Path) -> None:
    namespace: dict[str, object] = {"__name__": f"docs.{page.stem}"}
    for language, text, line in blocks(page):
        where = f"{page.name}:{line}"
        if language == "console":
            run_console(text, folder, where)
        elif language == "python" and not is_file(text):
            exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)
        else:
            assert is_file(text), f"{where}: a {language or 'plain'} block that nothing runs; name its file, or indent it"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        aim = page.parent / path if path else page
        assert aim.exists(), f"{page.name}: link to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", aim.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}, f"{page.name}: {target}"


def test_the_readme_and_the_notebook_walk_the_same_road() -> None:
    """The notebook runs in a test of its own; so what the README's Python block says runs too."""
    [(_, text, _)] = [block for block in blocks(ROOT / "README.md") if block[0] == "python"]
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    code = "".join("".join(cell["source"]) + "\n" for cell in notebook["cells"] if cell["cell_type"] == "code")
    for line in text.splitlines():
        statement = line.partition("  # ")[0].replace("examples/smartwatch/", "smartwatch/")
        if statement and not statement.lstrip().startswith("print("):
            assert statement in code, f"README: {line}"


def test_the_readme_holds_what_the_demo_printed() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    printed = text.partition("<!-- demo:begin -->")[2].partition("<!-- demo:end -->")[0]
    for word in ("onnx", "tflite", "coreml", "measured", "reference", "SHIP"):
        assert word in printed
