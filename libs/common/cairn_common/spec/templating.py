"""Filling in a workflow file's Jinja templates, without ever handing them a Python object to climb.

Order of work: the `default-values` section is cut out by its place at column 0 (the rest need not
be YAML before rendering), its lines are left blank so that line numbers hold; special tokens are
hidden behind private-use characters; the rest is rendered by an immutable sandbox with strict
undefined variables; the tokens are put back.

What the sandbox can bound in process it bounds: `range` steps, sizes of products and powers,
output. A loop over nothing but Python lists, or `~` in a loop, it cannot: `SpecLoader` runs
untrusted text in a process with limits for that reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cairn_common.spec.limits import Limits
from cairn_common.spec.positions import locate
from cairn_common.spec.problems import ErrorCode, Problem, SpecError
from cairn_common.spec.refusals import too_much_memory
from cairn_common.spec.tokens import RESERVED_NAMES, SPACED_NAMES, TOKEN
from cairn_common.spec.yamltext import parse_yaml

_TOP_LEVEL_KEY = re.compile(
    r"^([A-Za-z_][\w-]*|\"[^\"\n]*\"|'[^'\n]*')[ \t]*:(?=\s|$)", re.MULTILINE
)
_DEFAULTS_KEY = "default-values"
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TEMPLATE_NAME = "<template>"
_MAX_PRODUCT = 10_000_000
_MAX_BITS = 100_000
# What a template's own expressions may raise; anything else would be a fault of ours.
_TEMPLATE_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, SyntaxError,
    TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text after its templates. `templated` is false when it went through unchanged."""

    text: str
    templated: bool
    defaults: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


def is_templated(text: str) -> bool:
    """Whether a file needs rendering: whether it has Jinja beyond special tokens.

    `{#` alone does not count unless it is closed: shell scripts write `${#list[@]}`.
    """
    rest = TOKEN.sub("", text) if "{{" in text else text
    if "{{" in rest or "{%" in rest:
        return True
    opening = rest.find("{#")
    return opening >= 0 and rest.find("#}", opening) >= 0


def render(
    text: str,
    *,
    file: str = "workflow.yaml",
    set_variables: Sequence[str] = (),
    set_string_variables: Sequence[str] = (),
    limits: Limits | None = None,
    templates: bool = True,
) -> Rendered:
    """Fill in the templates of a file; with `templates=False` it is taken as it stands.

    `set_variables` are `name=value` with numbers recognised, `set_string_variables` stay text; both
    win over `default-values`, the latter over the former. Raises SpecError.
    """
    limits = limits or Limits()
    if not templates:  # filled in already: what looks like a template now is somebody's text
        return Rendered(text, False, {}, ())
    templated = is_templated(text)
    body, section = _cut_defaults(text, file) if templated else (text, "")
    defaults = _read_defaults(section, file, limits)
    given = _assignments(set_variables, file, cast=True)
    given |= _assignments(set_string_variables, file, cast=False)
    values = {**defaults, **given}
    if taken := reserved_problems(values, file):
        raise SpecError(locate(section, taken) if section else taken)
    if not templated:
        unused = tuple(f"--set {name}: this workflow has no templates" for name in given)
        return Rendered(text, False, {}, unused)
    rendered, used = _render_body(body, values, file, limits)
    unused = tuple(f"--set {name}: no template uses it" for name in given if name not in used)
    return Rendered(rendered, True, values, unused)


def _cut_defaults(text: str, file: str) -> tuple[str, str]:
    """The text with its default-values section blanked, and that section on its own.

    Blank lines stand for what was cut on both sides, so that both keep the author's line numbers.
    """
    keys = list(_TOP_LEVEL_KEY.finditer(text))
    sections = [i for i, match in enumerate(keys) if match[1].strip("\"'") == _DEFAULTS_KEY]
    if not sections:
        return text, ""
    if len(sections) > 1:
        again = keys[sections[1]]
        problem = Problem(
            f'Duplicate top-level key "{_DEFAULTS_KEY}" found in the workflow spec.', file=file
        )
        raise SpecError([problem.at(text.count("\n", 0, again.start()) + 1, 1)])
    index = sections[0]
    start = keys[index].start()
    end = keys[index + 1].start() if index + 1 < len(keys) else len(text)
    section = text[start:end]
    body = text[:start] + "\n" * section.count("\n") + text[end:]
    return body, "\n" * text.count("\n", 0, start) + section


def _read_defaults(section: str, file: str, limits: Limits) -> dict[str, Any]:
    """The values of a default-values section."""
    if not section:
        return {}
    value = parse_yaml(section, file=file, limits=limits).value[_DEFAULTS_KEY]
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        problem = Problem(
            "default-values must map names to values",
            location=(_DEFAULTS_KEY,),
            code=ErrorCode.USAGE,
            file=file,
            on_key=True,
        )
        raise SpecError(locate(section, [problem]))
    return value


def _assignments(items: Sequence[str], file: str, *, cast: bool) -> dict[str, Any]:
    values: dict[str, Any] = {}
    wrong: list[Problem] = []
    for item in items:
        name, separator, value = item.partition("=")
        name = name.strip()
        if not separator or not _IDENTIFIER.fullmatch(name):
            wrong.append(
                Problem(
                    f"{item[:80]!r} does not set a variable",
                    code=ErrorCode.USAGE,
                    hint="Write name=value; a name has letters, digits and _.",
                    file=file,
                )
            )
        else:
            values[name] = _cast(value) if cast else value
    if wrong:
        raise SpecError(wrong)
    return values


def _cast(value: str) -> int | float | str:
    """OSMO's reading of `--set`: an int, else a float, else the text itself (also true, false)."""
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


def reserved_problems(values: Mapping[str, Any], file: str) -> list[Problem]:
    """A problem for each variable that has the name of a special token."""
    return [
        Problem(
            f"the variable name {name!r} is taken by the special token {{{{{name}}}}}",
            location=(_DEFAULTS_KEY, name),
            code=ErrorCode.USAGE,
            hint="Choose another name: the system itself fills in the token.",
            file=file,
            on_key=True,
        )
        for name in sorted(RESERVED_NAMES & values.keys())
    ]


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with the arithmetic that could exhaust memory or time held in bounds."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, limits: Limits) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0)
        self._steps_left = limits.max_iterations
        self.globals["range"] = self._range

    def _range(self, *bounds: int) -> range:
        steps = range(*bounds)
        self._steps_left -= min(len(steps), self._steps_left + 1)
        if self._steps_left < 0:
            raise SecurityError("the range() loops of the template take too many steps")
        return steps

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if not _affordable(operator, left, right):
            raise SecurityError(f"the result of {operator!r} would be too large")
        return super().call_binop(context, operator, left, right)


def _affordable(operator: str, left: Any, right: Any) -> bool:
    if operator == "%":
        # Text formatting pads to a width of the template's choice.
        return not isinstance(left, str)
    if isinstance(left, int) and isinstance(right, int):
        if operator == "**":
            return left.bit_length() * max(right, 0) <= _MAX_BITS
        return left.bit_length() + right.bit_length() <= _MAX_BITS
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, (str, bytes, list, tuple)) and isinstance(count, int):
            return len(sequence) * max(count, 0) <= _MAX_PRODUCT
    return True


def _render_body(
    body: str, values: Mapping[str, Any], file: str, limits: Limits
) -> tuple[str, set[str]]:
    mask, unmask = _token_mask(body)
    source = TOKEN.sub(mask, body)
    environment = _Sandbox(limits)
    tree: nodes.Template | None = None
    try:
        tree = environment.parse(source, name=_TEMPLATE_NAME)
        used = set(meta.find_undeclared_variables(tree))
        template = environment.from_string(tree)
        parts: list[str] = []
        size = 0
        for part in template.generate(dict(values)):
            size += len(part)
            if size > limits.max_rendered_bytes:
                raise SecurityError(
                    f"the rendered text exceeds {limits.max_rendered_bytes:,} bytes"
                )
            parts.append(part)
    except TemplateSyntaxError as error:
        raise SpecError([_syntax_problem(error, body, file)]) from None
    except UndefinedError as error:
        assert tree is not None
        raise SpecError(_undefined_problems(error, tree, values, body, file)) from None
    except MemoryError:
        raise SpecError([too_much_memory(file)]) from None
    except (TemplateError, *_TEMPLATE_FAULTS) as error:
        raise SpecError([_failure(error, body, file)]) from None
    return unmask("".join(parts)), used


def _token_mask(text: str) -> tuple[Any, Any]:
    """Functions that hide tokens behind a character which `text` does not contain, and back."""
    edge = next(chr(c) for c in range(0xE000, 0xF8FF) if chr(c) not in text)
    hidden: list[str] = []

    def mask(match: re.Match[str]) -> str:
        hidden.append(match[0])
        return f"{edge}{len(hidden) - 1}{edge}"

    marker = re.compile(f"{edge}(\\d{{1,9}}){edge}", re.ASCII)

    def unmask(rendered: str) -> str:
        # A template can write the edge character as an escape, with any number: leave those alone.
        return marker.sub(
            lambda m: hidden[int(m[1])] if int(m[1]) < len(hidden) else m[0], rendered
        )

    return mask, unmask


def _failure_message(error: BaseException) -> str:
    """OSMO's wording of a failed rendering."""
    return f"Jinja substitution failure: {type(error)}: {str(error)[:300]}"


def _line(body: str, number: int) -> str:
    lines = body.split("\n")
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _syntax_problem(error: TemplateSyntaxError, body: str, file: str) -> Problem:
    hint = "Check the brackets of the template near this line."
    if "comment" in str(error):
        hint = "Put shell text such as ${#list[@]} between {% raw %} and {% endraw %}."
    problem = Problem(_failure_message(error), code=ErrorCode.USAGE, hint=hint, file=file)
    return problem.at(error.lineno, 1, _line(body, error.lineno))


def _failure(error: BaseException, body: str, file: str) -> Problem:
    hint = ""
    if isinstance(error, SecurityError):
        hint = "Templates may compute names and values; they cannot reach into Python."
    problem = Problem(_failure_message(error), code=ErrorCode.USAGE, hint=hint, file=file)
    number = _failing_line(error)
    return problem.at(number, 1, _line(body, number)) if number else problem


def _failing_line(error: BaseException) -> int:
    """The template line that raised, from the traceback Jinja rewrites; 0 if unknown."""
    number = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in {_TEMPLATE_NAME, "<template>", "<unknown>"}:
            number = trace.tb_lineno
        trace = trace.tb_next
    return number


def _undefined_problems(
    error: UndefinedError, tree: nodes.Template, values: Mapping[str, Any], body: str, file: str
) -> list[Problem]:
    """All variables nobody defined, each at its first use; else the one fault that was raised."""
    undeclared = meta.find_undeclared_variables(tree) - values.keys()
    problems: list[Problem] = []
    for name, number in _first_uses(tree):
        if name not in undeclared:
            continue
        hint = f"Give it a value under default-values, or submit with --set {name}=..."
        if name in SPACED_NAMES:
            written = name if name in RESERVED_NAMES else f"{name}:..."
            hint = f"Special tokens have no spaces: write {{{{{written}}}}}."
        line = _line(body, number)
        found = re.search(rf"\b{re.escape(name)}\b", line)
        problem = Problem(
            f"Jinja substitution failure: {type(error)}: {name!r} is undefined",
            code=ErrorCode.USAGE,
            hint=hint,
            file=file,
        )
        problems.append(problem.at(number, found.start() + 1 if found else 1, line))
    return problems or [_failure(error, body, file)]


def _first_uses(tree: nodes.Template) -> Iterator[tuple[str, int]]:
    """Each variable that is read without a guard, with the line of its first such use."""
    guarded: set[int] = set()
    for guard in tree.find_all((nodes.Filter, nodes.Test)):
        assert isinstance(guard, (nodes.Filter, nodes.Test))
        if guard.name in {"default", "d", "defined", "undefined"} and guard.node is not None:
            guarded.add(id(guard.node))
    seen: set[str] = set()
    for name in tree.find_all(nodes.Name):
        if name.ctx == "load" and id(name) not in guarded and name.name not in seen:
            seen.add(name.name)
            yield name.name, name.lineno
