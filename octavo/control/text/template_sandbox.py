"""The sandbox that chat templates run in: what transformers gives them, and limits on what they may spend.

A template comes with a model, so it is a stranger's program. It gets no attribute that leads out of the
sandbox, and a budget of steps and of characters that any honest conversation stays far below.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_RENDERED_CHARS = 8 * 2**20
MAX_STEPS = 100_000

# A template cannot reach these: no name in it can hold a space.
BUDGET_KEY = "step budget"
_COUNT, _JOIN = "count step", "join texts"


class StepBudget:
    """Loop rounds and macro calls that one rendering has left."""

    def __init__(self) -> None:
        self.num_left = MAX_STEPS


class _GenerationTag(Extension):
    """{% generation %}...{% endgeneration %} marks, for training, what the model is to say; here it is
    as if the marks were not there."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Guard(NodeTransformer):
    """Makes a template account for what it does: loop rounds, macro calls, and joined texts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 (jinja2's own naming)
        return self._count(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._count(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.Tuple(node.nodes, "load"), _JOIN).set_lineno(node.lineno)

    def _count(self, node: nodes.For | nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(None), _COUNT)).set_lineno(node.lineno))
        return node


def _filter(value: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """A jinja2 environment as chat templates expect it (transformers, chat_template_utils.py).

    Loops and macros are counted against a StepBudget, and operators that make values longer are checked,
    so that neither an endless loop nor a doubled text outlives its rendering.
    """

    intercepted_binops = frozenset({"+", "*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
        self.filters |= {"tojson": _render_json, _COUNT: _count_step, _JOIN: _join_texts}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _render_now}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        _Guard().visit(template)  # in place
        template.set_environment(self)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Run an operator, unless its result would be absurdly large."""
        if operator == "*":
            size = max(_size(left) * _number(right), _size(right) * _number(left))
        elif operator == "**":
            size = _number(left).bit_length() * _number(right)
        else:
            size = _size(left) + _size(right)
        _check_size(size)
        return super().call_binop(context, operator, left, right)


@pass_context
def _count_step(context: Context, _: None) -> None:
    """Charge one loop round or macro call to the rendering at work."""
    budget: StepBudget = context.parent[BUDGET_KEY]
    budget.num_left -= 1
    if budget.num_left < 0:
        raise TemplateError(f"the template takes more than {MAX_STEPS} steps")


def _join_texts(parts: tuple[object, ...]) -> str:
    """The operator ~."""
    texts = [str(part) for part in parts]
    _check_size(sum(len(text) for text in texts))
    return "".join(texts)


def _check_size(size: int) -> None:
    if size > MAX_RENDERED_CHARS:
        raise TemplateError("the template makes a value that is too large")


def _size(value: object) -> int:
    return len(value) if isinstance(value, Sequence) else 0


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _render_now(format: str) -> str:
    return datetime.now().strftime(format)


def _render_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; jinja2's own filter would escape what HTML must not hold."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
