"""From YAML text and ``--set`` values to a recipe, with the line of every mistake."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from compressnet.errors import RecipeError, did_you_mean
from compressnet.recipe.rules import BLOCK_RULES, BLOCK_TAG, RULES, TAGS, BlockRule, BudgetRule, MatchSpec, Rule
from compressnet.recipe.schema import Recipe

Key = tuple[str | int, ...]

MISSING = "the key is missing"
MAPPINGS = {"match": "MatchSpec", "lr_scale": "dict["}  # keys that may hold a mapping, and how pydantic calls that case


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong, and where."""

    key: Key
    what: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}  " if self.line else ""
        return f"{place}{dotted(self.key)}: {self.what}" if self.key else f"{place}{self.what}"


@dataclass
class Draft:
    """A recipe as read: the raw values, the line of each, and what is wrong with them so far."""

    source: str
    raw: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    recipe: Recipe | None = None

    @property
    def context(self) -> dict[str, bool]:
        """What a rule has to know of the recipe around it: whether a budget may choose its ratio."""
        return {"budget": self.raw.get("budget") is not None}

    def mistake(self, key: Key, what: str) -> None:
        """Note a mistake at a key."""
        place = next((key[:n] for n in range(len(key), 0, -1) if key[:n] in self.lines), None)
        self.mistakes.append(Mistake(key, what, self.lines[place] if place else None))

    def checked(self) -> Recipe:
        """The recipe.

        Raises:
            RecipeError: naming every mistake.
        """
        if self.mistakes or self.recipe is None:
            raise mistakes_error(self.source, self.mistakes)
        return self.recipe


def mistakes_error(source: str, mistakes: Sequence[Mistake]) -> RecipeError:
    """One error for all mistakes, in the order of their lines."""
    ordered = sorted(mistakes, key=lambda m: m.line or 0)
    count = f"{len(ordered)} mistake{'s' if len(ordered) != 1 else ''}"
    return RecipeError("\n  ".join([f"{source} has {count}", *(str(m).replace("\n", "\n  ") for m in ordered)]))


def read_recipe(source: str | Path | Mapping[str, Any] | Recipe, overrides: Iterable[str] = ()) -> Draft:
    """Read a recipe.

    Args:
        source: the path of a YAML file, the recipe as a mapping, or a recipe.
        overrides: ``key.path=value`` each, the value in YAML.

    Returns:
        a draft; :meth:`Draft.checked` gives the recipe or raises every mistake.

    Raises:
        RecipeError: the file is missing or is not YAML, or an override is not of that form.
    """
    if isinstance(source, Recipe):
        draft = Draft("recipe", source.model_dump(mode="json", exclude_defaults=True))
    elif isinstance(source, Mapping):
        draft = Draft("recipe", copy.deepcopy(dict(source)))
    else:
        draft = _parse(Path(source))
    for override in overrides:
        _override(draft, override)
    try:
        draft.recipe = Recipe.model_validate(draft.raw, context=draft.context)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            _note(draft, dict(item))
        meant = {
            (m.key[:-1], word) for m in draft.mistakes for word in m.what.split("'")[1:2] if "did you mean" in m.what
        }
        draft.mistakes = [m for m in draft.mistakes if m.what != MISSING or (m.key[:-1], m.key[-1]) not in meant]
    return draft


def _parse(path: Path) -> Draft:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError("no such recipe", str(path), "`compressnet recipes` lists those that come along") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read as text: {error}", str(path)) from None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise RecipeError(f"not YAML: {problem}", f"{path}{line}") from None
    if not isinstance(raw, dict):
        raise RecipeError("not a recipe: expected keys such as model, data, layers", str(path))
    draft = Draft(str(path), raw)
    _note_lines(draft, node, ())
    return draft


def _note_lines(draft: Draft, node: Any, key: Key) -> None:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            inner = (*key, name.value)
            draft.lines.setdefault(inner, name.start_mark.line + 1)
            if name.value in seen:
                draft.mistakes.append(Mistake(inner, "given twice", name.start_mark.line + 1))
            seen.add(name.value)
            _note_lines(draft, value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            draft.lines.setdefault((*key, index), value.start_mark.line + 1)
            _note_lines(draft, value, (*key, index))


def _override(draft: Draft, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set '{override}' is not of the form key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"--set '{override}': the value is not YAML") from None
    keys: list[str | int] = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = draft.raw
    for depth, key in enumerate(keys[:-1]):
        if isinstance(target, dict) and target.get(key) is None:
            target[key] = {}
        target = _step(target, key, override, keys[: depth + 1])
    _step(target, keys[-1], override, keys, writing=True)
    target[keys[-1]] = value
    given = tuple(keys)
    elsewhere = {key: line for key, line in draft.lines.items() if key[: len(given)] != given}
    draft.lines = {**elsewhere, given: 0}  # it stands in no line of the file


def _step(target: Any, key: str | int, override: str, path: Sequence[str | int], writing: bool = False) -> Any:
    if isinstance(target, list) and isinstance(key, int):
        if key < len(target):
            return target[key]
        raise RecipeError(f"--set '{override}': {dotted(path)} does not exist; the list has {len(target)} entries")
    if isinstance(target, dict):
        return None if writing else target[key]
    raise RecipeError(f"--set '{override}': {dotted(path[:-1]) or 'the recipe'} has no keys inside")


def dotted(key: Iterable[str | int]) -> str:
    """A key as a user writes it.

    >>> dotted(("layers", 0, "ratio"))
    'layers[0].ratio'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")


def _note(draft: Draft, item: dict[str, Any]) -> None:
    location = list(item["loc"])
    if len(location) > 2 and location[0] == "layers" and location[2] in TAGS:
        section: type[BaseModel] = TAGS[location.pop(2)]
    else:
        section = _section(location)
    if location[:1] == ["layers"] and len(location) > 3 and location[2] in MAPPINGS:
        takes_keys = not (location[2] == "match" and issubclass(section, BlockRule))
        given = draft.raw["layers"][location[1]][location[2]]
        if takes_keys and isinstance(given, dict) != str(location[3]).startswith(MAPPINGS[location[2]]):
            return
        section = MatchSpec if location[2] == "match" and takes_keys else section
        del location[3]  # the branches of a union are pydantic's, not the user's
        if not (takes_keys and isinstance(given, dict)):
            location, item = location[:3], item | {"input": given}
    key = tuple(location)
    if item["type"] == "union_tag_invalid":
        key += ("block" if item["ctx"]["tag"].startswith(BLOCK_TAG) else "method",)
    what = _words(item, key, section)
    if not any(m.key == key for m in draft.mistakes):
        draft.mistake(key, what)


def _section(location: Sequence[str | int]) -> type[BaseModel]:
    """The section of a recipe that a key stands in."""
    section: type[BaseModel] = Recipe
    for name in location[:-1]:
        field = section.model_fields.get(str(name))
        section = next(iter(_classes(field.annotation if field else None)), section)
    return section


def _classes(annotation: Any) -> list[type[BaseModel]]:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]


def _words(item: dict[str, Any], key: Key, section: type[BaseModel]) -> str:
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden" and key[-1] in BudgetRule.model_fields and issubclass(section, Rule):
        sizes = " or ".join(f"'{size}'" for size in getattr(section, "sizes", ()))
        return f"unknown key; its size is set by {sizes}"
    if kind == "extra_forbidden" and key[-1] == "method" and issubclass(section, BlockRule):
        return "a rule has a method or a block, not both"
    if kind == "extra_forbidden":
        return f"unknown key; {did_you_mean(str(key[-1]), section.model_fields)}"
    if kind == "union_tag_not_found":
        blocks = did_you_mean("", BLOCK_RULES)
        return f"the key 'method' is missing; {did_you_mean('', RULES)}; or the key 'block'; {blocks}"
    if kind == "union_tag_invalid":
        tag = item["ctx"]["tag"]
        block = tag.removeprefix(BLOCK_TAG)
        if block != tag:
            is_method = f"it is a method: write 'method: {block}'"
            return f"unknown block '{block}'; {is_method if block in RULES else did_you_mean(block, BLOCK_RULES)}"
        if tag in BLOCK_RULES:
            return f"unknown method '{tag}'; it is a block: write 'block: {tag}'"
        return f"unknown method '{tag}'; {did_you_mean(tag, RULES)}"
    if kind == "missing":
        return MISSING
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if key[-1:] == ("match",) and issubclass(section, BlockRule):
        return f"expected the names of consecutive layers, such as [classifier.1, classifier.2], not {given!r}"
    if key[-1:] == ("match",):
        return f"expected a glob, a list of globs, or keys such as {{type: conv2d, kernel: [3, 3]}}, not {given!r}"
    if kind == "literal_error" and isinstance(given, str):
        options = [part.strip("' ") for part in item["ctx"]["expected"].replace(" or ", ",").split(",")]
        return f"unknown value '{given}'; {did_you_mean(given, options)}"
    message = item["msg"].replace("Input should be", "should be")
    return f"{message[0].lower()}{message[1:]}, not {given!r}"
