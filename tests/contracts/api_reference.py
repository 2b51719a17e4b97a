"""The reference in ``docs/api.md``, written from the sources: ``python -m tests.contracts.api_reference`` renews it.

Everything below the page's mark is made here, of the names that `wfm` offers: signatures as they stand, docstrings, fields.
"""

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import wfm

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
MARK = "<!-- What follows is written by: python -m tests.contracts.api_reference -->\n"
ERRORS = "wfm.errors"
ALIASES = {"wfm.generation.given_actions": ("Actions", "Camera", "Table"), "pipelines.api.run": ("Overrides",)}


def reference() -> str:
    """The generated half of the page."""
    parts = []
    for name, (home, there) in wfm._HOMES.items():
        if home == ERRORS or name == "RunFailed":
            continue
        node = _definition(home, there)
        parts += [f"### `wfm.{name}`", ""]
        if isinstance(node, ast.ClassDef):
            parts += [*_text(node), *_members(node, home)]
        else:
            parts += [*_signature(name, node, "wfm."), *_text(node)]
    parts += ["### Types of arguments", "", *_aliases(), "### Errors", "", *_errors()]
    return "\n".join(parts).rstrip() + "\n"


def with_reference(page: str) -> str:
    """The page with its second half as it has to be."""
    head, mark, _ = page.partition(MARK)
    assert mark, f"{PAGE} has lost its mark"
    return head + MARK + "\n" + reference()


def _definition(module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    raise AssertionError(f"{module} has no {name}")


def _members(node: ast.ClassDef, module: str) -> Iterator[str]:
    rows = [row for base in node.bases if isinstance(base, ast.Name) for row in _inherited(module, base.id)]
    rows += _fields(node)
    for one in _functions(node):
        if "property" in (name := _decorators(one)) or "cached_property" in name:
            rows.append((one.name, ast.unparse(one.returns) if one.returns else "", " ".join(_paragraphs(one))))
    if rows:
        yield from ("| attribute | type | |", "|---|---|---|")
        for name, kind, words in rows:
            yield f"| `{name}` | `{_plain(kind)}` | {_cell(words)} |"
        yield ""
    for one in _functions(node):
        if not {"property", "cached_property"} & _decorators(one):
            owner = node.name.lower().removeprefix("clip").removeprefix("published")
            spoken = {"__iter__": f"iter({owner})", "__len__": f"len({owner})"}.get(one.name)
            yield from (
                ("```python", f"{spoken} -> {ast.unparse(one.returns)}", "```", "")
                if spoken and one.returns
                else (_signature(one.name, one, f"{owner}."))
            )
            yield from _text(one)


def _inherited(module: str, base: str) -> Iterator[tuple[str, str, str]]:
    """Fields of a base that stands in the same file."""
    for one in ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()).body:
        if isinstance(one, ast.ClassDef) and one.name == base:
            yield from _fields(one)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Fields of the class body, and what the constructor keeps under a public name, each with the text below it."""
    init = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    kinds = {one.arg: ast.unparse(one.annotation) for one in init.args.args if one.annotation} if init else {}
    for body in (node.body, init.body if init else []):
        for one, following in zip(body, [*body[1:], None], strict=False):
            words = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                words = str(following.value.value)
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                yield one.target.id, ast.unparse(one.annotation), words
            elif isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Attribute) and words:
                yield one.targets[0].attr, kinds.get(ast.unparse(one.value), "tuple[str, ...]"), words


def _functions(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and (not one.name.startswith("_") or one.name in ("__iter__", "__len__")):
            yield one


def _decorators(node: ast.FunctionDef) -> set[str]:
    return {ast.unparse(one).rpartition(".")[2] for one in node.decorator_list}


def _signature(name: str, node: ast.FunctionDef, before: str) -> Iterator[str]:
    texts = list(_arguments(node.args))
    returns = f" -> {_plain(ast.unparse(node.returns))}" if node.returns else ""
    line = f"{before}{name}({', '.join(texts)}){returns}"
    if len(line) > 100:
        line = f"{before}{name}(\n" + "".join(f"    {one},\n" for one in texts) + f"){returns}"
    yield from ("```python", line, "```", "")


def _arguments(given: ast.arguments) -> Iterator[str]:
    def text(one: ast.arg, default: ast.expr | None) -> str:
        kind = f": {_plain(ast.unparse(one.annotation))}" if one.annotation else ""
        return one.arg + kind + (f" = {ast.unparse(default)}".replace("'", '"') if default is not None else "")

    plain = [one for one in given.args if one.arg not in ("self", "cls")]
    yield from map(text, plain, [None] * (len(plain) - len(given.defaults)) + list(given.defaults))
    if given.kwonlyargs:
        yield "*"
    yield from map(text, given.kwonlyargs, given.kw_defaults)


def _plain(annotation: str) -> str:
    """An annotation as a reader wants it: no quotes around names, no module before them."""
    annotation = re.sub(r"'([A-Za-z_.]+)'", r"\1", annotation)
    for long, short in (("os.PathLike[str]", "PathLike"), ("PathLike[str]", "PathLike"), ("np.ndarray", "ndarray")):
        annotation = annotation.replace(long, short)
    return annotation.replace("Kept", "wfm.artifacts.Store")


def _paragraphs(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    return [re.sub(r"\s*\n\s*", " ", one) for one in text.split("\n\n") if one.strip()]


def _text(node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    names = []
    if isinstance(node, ast.FunctionDef):
        names = [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
    said = "|".join(names) or "(?!)"
    for paragraph in _paragraphs(node):
        pieces = re.split(rf"(?:^|(?<=[.;] ))(?=(?:(?:{said})(?:, )?)+: )", paragraph)
        for piece in filter(None, pieces):
            head, colon, rest = piece.partition(": ")
            told = bool(colon) and set(head.split(", ")) <= set(names)
            text = f"- `{head}`: {rest.rstrip(' ;')}" if told else piece
            yield from textwrap.wrap(
                _markdown(text), 128, subsequent_indent="  " if told else "", break_long_words=False, break_on_hyphens=False
            )  # fmt: skip
        yield ""


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return _markdown(" ".join(text.split())).replace("|", "\\|")


def _aliases() -> Iterator[str]:
    for module, names in ALIASES.items():
        body = ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()).body
        for one, following in itertools.pairwise(body):
            if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) in names:
                assert isinstance(following, ast.Expr)
                assert isinstance(following.value, ast.Constant)
                words = _cell(str(following.value.value))
                text = f"- `{ast.unparse(one.targets[0])}` = `{_plain(ast.unparse(one.value))}`: {words}"
                yield from textwrap.wrap(text, 128, subsequent_indent="  ", break_long_words=False)
    yield ""


def _errors() -> Iterator[str]:
    yield from ("Every error that wfm raises on purpose is a `wfm.WfmError`.", "")
    yield from ("| error | kind of | when |", "|---|---|---|")
    for name, (home, there) in wfm._HOMES.items():
        if home == ERRORS or name == "RunFailed":
            node = _definition(home, there)
            assert isinstance(node, ast.ClassDef)
            yield f"| `wfm.{name}` | `{ast.unparse(node.bases[0])}` | {_cell(' '.join(_paragraphs(node)))} |"


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text()))
