"""``recipes``: those that come along."""

from dataclasses import asdict, dataclass
from pathlib import Path

from compressnet.errors import RecipeError, did_you_mean


@dataclass(frozen=True)
class Shipped:
    """A recipe that comes along.

    Args:
        name: what ``recipes NAME`` calls it: its file name without the suffix.
        path: of its file.
        summary: the first line of its header comment.
        text: of the file.
    """

    name: str
    path: Path
    summary: str
    text: str

    def to_json(self) -> dict[str, str]:
        """For ``--json``."""
        return asdict(self) | {"path": str(self.path)}


def folder() -> Path:
    """Where the recipes are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipes() -> list[Shipped]:
    """The recipes that come along, by name."""
    found = []
    for path in sorted(folder().rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(folder()).with_suffix("").as_posix()
        found.append(Shipped(name, path, text.partition("\n")[0].lstrip("# "), text))
    return found


def recipe(name: str) -> Shipped:
    """One of them.

    Raises:
        RecipeError: there is none of that name.
    """
    shipped = {item.name: item for item in recipes()}
    wanted = name.removesuffix(".yaml")
    if wanted not in shipped:
        raise RecipeError(f"no recipe '{name}' comes along; {did_you_mean(wanted, shipped)}")
    return shipped[wanted]


def shipped_path(name: str) -> Path | None:
    """Where the recipe of that name is, unless a file of that name is at hand or none of it comes along."""
    if Path(name).exists():
        return None
    return next((item.path for item in recipes() if item.name == name), None)


def find(argument: str) -> Path:
    """The recipe a user means: a path, or the name of one that comes along.

    Raises:
        RecipeError: it is neither.
    """
    path = shipped_path(argument) or Path(argument)
    if not path.exists():
        near = did_you_mean(Path(argument).stem, [item.name for item in recipes()])
        raise RecipeError("no such file, and no recipe of that name comes along", argument, near)
    return path
