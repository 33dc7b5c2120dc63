"""The example of docs/adding-a-method.md runs: its file, its line in the table, its test."""

import doctest
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
FILE, TEST = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NAME = "compressnet.methods.sharedrows"

module = ModuleType(NAME)
sys.modules[NAME] = module
exec(compile(FILE, f"{NAME}, from the page", "exec"), module.__dict__)
exec(compile(TEST, "the test on the page", "exec"))  # defines the contract's test class here

CONVERT = """
import sys, torch, compressnet
path, rule = sys.argv[1] + "/model.safetensors", {"match": "fc1", "method": "sharedrows", "ratio": 4}
compressnet.convert({"model": {"name": "lenet_300_100"}, "layers": [rule]}, path)
model = compressnet.load(path)
print(compressnet.__file__, type(model.fc1.structured).__name__, compressnet.report(path)[0].rows[0].ratio)
"""


def test_the_example_in_its_docstring_is_right() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    results = [doctest.DocTestRunner().run(test) for test in finder.find(module, NAME)]
    assert sum(result.attempted for result in results) == 2
    assert sum(result.failed for result in results) == 0


def test_its_line_in_the_table_is_all_that_recipes_files_and_reports_need(tmp_path: Path) -> None:
    package = tmp_path / "compressnet"
    shutil.copytree(ROOT / "compressnet", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "methods" / "sharedrows.py").write_text(FILE, encoding="utf-8")
    table = package / "methods" / "__init__.py"
    text = table.read_text(encoding="utf-8")
    (diff,) = re.findall(r"^```diff\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    imported, added = (line[1:] for line in diff.splitlines() if line.startswith("+"))
    before = re.findall(r"^ (.*)\n\+    ", diff, re.MULTILINE)[0]
    assert text.count(f"{before}\n") == 1
    start = text.index("from compressnet.structured")
    text = f"{text[:start]}{imported}\n{text[start:]}".replace(f"{before}\n", f"{before}\n{added}\n")
    table.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout.split() == [str(package / "__init__.py"), "SharedRowsWeight", "4.0"]
