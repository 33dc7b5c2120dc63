"""The documentation is there, complete, and names nothing that is not."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from compressnet.blocks import BLOCKS
from compressnet.cli import app
from compressnet.methods import METHODS
from compressnet.plan import make_plan
from compressnet.recipe import Recipe, read_recipe
from compressnet.recipe.recovery import (
    BatchNormSection,
    CalibrateSection,
    DistillSection,
    GradualSection,
    QuantiseSection,
)
from compressnet.recipe.rules import BlockRule, BudgetRule, MatchSpec
from compressnet.recipe.schema import (
    DATASETS,
    CalibrationSection,
    DataSection,
    ExportSection,
    FinetuneSection,
    ModelSection,
)
from compressnet.zoo.weights import is_path
from tests.test_layering import FLOORS

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")

SECTIONS: dict[str, type[BaseModel]] = {
    "## model": ModelSection,
    "## data": DataSection,
    "## layers": BudgetRule,
    "## match": MatchSpec,
    "## calibration": CalibrationSection,
    "## pretrain and finetune": FinetuneSection,
    "## export": ExportSection,
    **{f"### {method.name}": method.Config for method in METHODS},
    "## blocks": BlockRule,
    **{f"### {block.name}": block.Config for block in BLOCKS},
}
INNER = {
    "calibrate": CalibrateSection,
    "batchnorm": BatchNormSection,
    "gradual": GradualSection,
    "distill": DistillSection,
    "quantise": QuantiseSection,
}
KEYS = [
    (heading, key)
    for heading, model in SECTIONS.items()
    for key in model.model_fields
    if (heading, key) != ("## layers", "ratio")  # each method describes its own
] + [("## pretrain and finetune", f"{name}.{key}") for name, model in INNER.items() for key in model.model_fields]


def section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next of its rank or above."""
    depth = heading.count("#", 0, heading.index(" "))
    text = "\n" + page.read_text(encoding="utf-8")
    assert f"\n{heading}\n" in text, f"{page.name} has no heading '{heading}'"
    rest = text.partition(f"\n{heading}\n")[2]
    return re.split(rf"^#{{1,{depth}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def row(text: str, key: str) -> list[str]:
    """The cells of a table's row about a key."""
    found = [line for line in text.splitlines() if line.startswith(f"| `{key}` |")]
    assert len(found) == 1, f"'{key}' needs one row"
    return [cell.strip() for cell in found[0].strip("|").split(" | ")]


FORMS = [("methods", method) for method in METHODS] + [("blocks", block) for block in BLOCKS]


@pytest.mark.parametrize(("kind", "name"), [(kind, form.name) for kind, form in FORMS])
def test_every_method_and_block_has_its_page_and_its_test(kind: str, name: str) -> None:
    page = DOCS / kind / f"{name}.md"
    assert page.is_file()
    assert (ROOT / "tests" / kind / f"test_{name}.py").is_file()
    assert f"]({name}.md)" in (DOCS / kind / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "name", "key"), [(kind, form.name, key) for kind, form in FORMS for key in form.Config.model_fields]
)
def test_every_key_of_a_method_or_block_is_on_its_own_page(kind: str, name: str, key: str) -> None:
    assert f"`{key}`" in (DOCS / kind / f"{name}.md").read_text(encoding="utf-8")


def test_every_section_of_a_recipe_is_documented() -> None:
    described = {"budget", "model", "data", "layers", "calibration", "pretrain", "finetune", "export", "seed"}
    assert set(Recipe.model_fields) == described
    for name in ("budget", "model", "data", "layers", "calibration", "pretrain and finetune", "export", "seed"):
        section(DOCS / "recipes.md", f"## {name}")


@pytest.mark.parametrize(("heading", "key"), KEYS)
def test_every_key_of_a_recipe_is_documented_with_its_default(heading: str, key: str) -> None:
    cells = row(section(DOCS / "recipes.md", heading), key)
    inner, _, last = key.rpartition(".")
    default = (INNER[inner] if inner else SECTIONS[heading]).model_fields[last].default
    expected = "required" if default is PydanticUndefined else default
    assert cells[2] == (expected if isinstance(expected, str) else json.dumps(expected))


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_documented(name: str) -> None:
    assert f"`{name}`" in section(DOCS / "recipes.md", "### Data sets")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_heading(command: str) -> None:
    page = DOCS / "cli.md"
    if not page.exists():
        pytest.skip("there is no docs/cli.md yet")
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert any(re.search(rf"\b{command}\b", heading) for heading in headings)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are rendered."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.*?)\s*$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def links() -> list[Any]:
    found = []
    for page in PAGES:
        text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
        found += [
            pytest.param(page, target, id=f"{page.relative_to(ROOT)}:{target}")
            for target in sorted(set(LINK.findall(text)))
            if not re.match(r"[a-z]+:", target)
        ]
    return found


@pytest.mark.parametrize(("page", "target"), links())
def test_every_link_points_to_something(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.exists(), f"{page.relative_to(ROOT)} links to {path}, which does not exist"
    if anchor:
        assert anchor in anchors(file), f"{file.relative_to(ROOT)} has no heading for #{anchor}"


def planned(path: Path) -> None:
    """Plan a recipe; without its weights where they are a file of the user's."""
    weights = yaml.safe_load(path.read_text(encoding="utf-8"))["model"].get("weights")
    absent = isinstance(weights, str) and is_path(weights) and not Path(weights).exists()
    plan = make_plan(read_recipe(path, ["model.weights=null"] if absent else []))
    assert not plan.recipe.layers or plan.blocks or any(layer.method for layer in plan.layers)


def test_recipes_come_along() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_says_what_it_is_and_plans(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# \S", text), "its first line is a comment that says what it is"
    planned(path)


def examples() -> list[Any]:
    blocks = [(page, body) for page in PAGES for kind, body in FENCE.findall(page.read_text("utf-8")) if kind == "yaml"]
    whole = [(page, body) for page, body in blocks if "model" in yaml.safe_load(body)]
    return [pytest.param(body, id=f"{page.stem}{index}") for index, (page, body) in enumerate(whole)]


@pytest.mark.parametrize("text", examples())
def test_every_recipe_in_the_documentation_plans(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    planned(tmp_path / "recipe.yaml")


def test_the_floors_are_those_that_are_enforced() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", section(DOCS / "architecture.md", "## Floors"), re.MULTILINE)
    described = {int(height): set(re.findall(r"`(\w+)`", modules)) for height, modules in rows}
    assert described == dict(enumerate(FLOORS, start=1))


COMMAND_LINES = {
    "the first": r"^python3 .*compressnet run recipes/quickstart\.yaml",
    "the second": r"^python3 .*\.venv/bin/pytest",
}


@pytest.mark.parametrize("pattern", COMMAND_LINES.values(), ids=COMMAND_LINES)
def test_readme_has_each_of_its_two_commands_in_one_line(pattern: str) -> None:
    blocks = [body for _, body in FENCE.findall((ROOT / "README.md").read_text(encoding="utf-8"))]
    if not blocks:
        pytest.skip("README.md has no commands yet")
    assert any(re.search(pattern, line) for body in blocks for line in body.splitlines())


def error_texts() -> list[Any]:
    """The longest constant part of each text of an error or of a recipe's mistake."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "compressnet").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = ast.unparse(node.func)
            kind = next((k for k in ("mistake", "Error") if name.endswith(k)), None)
            ours = kind == "mistake" or name.removesuffix("Error") in (
                "Compressnet", "Recipe", "Plan", "Weights", "Data", "File", "Training", "Resume", "Device",
            )  # fmt: skip
            text = node.args[-1] if kind == "mistake" else node.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            constants = [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]
            longest = max(constants, key=len, default="").strip(" ;:,'(")
            if kind and ours and len(longest) > 7:
                found[longest] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return [pytest.param(text, id=f"{place} {text}") for text, place in found.items()]


@pytest.mark.parametrize("text", error_texts())
def test_every_error_is_in_the_troubleshooting_page(text: str) -> None:
    assert text in (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
