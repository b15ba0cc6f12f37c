"""The calculator a reply may call: exact arithmetic and ``'text'.count('x')``, and nothing else.

An expression is text that a model wrote, so it is hostile until shown otherwise. It is never evaluated: after
a check of its alphabet it is parsed, and a walk over the syntax tree computes the few node types listed here,
with every intermediate number bounded in size. Numbers are exact fractions, so ``0.1+0.2`` is ``0.3``, as a
person who writes a worked solution would have it, and not the nearest binary float.

Training data that shows tool output must take it from ``calculate`` as well: that is what makes the tokens a
model learned to read and those it will be given the same.
"""

from __future__ import annotations

import ast
import operator
import re
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

FAILED = "error"
"""The output of every expression without a value here: malformed, unknown, too large, divided by zero."""

MAX_CHARACTERS = 256
MAX_DEPTH = 48
MAX_BITS = 256
MAX_EXPONENT = 64
NUM_DIGITS = 10
"""Significant digits of a result that has no short exact decimal form, such as 1/3."""

# Possessive throughout: hostile text must not find a way to make the matcher try one cut after another.
_NUMBER = r"(?>\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d{1,3}+)?+"
_STRING = r"'[^'\\\n]*'|\"[^\"\\\n]*\""
# Checked before parsing: the parser never meets a name, a backslash or a comment, so it can neither warn nor
# surprise.
_ALPHABET = re.compile(rf"(?:{_STRING}|\.count(?=\()|{_NUMBER}(?![\w.])|[-+*/%()]|[ \t])++", re.ASCII)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))", re.ASCII)

_Value = Fraction | str


class _NoValueError(Exception):
    """The expression has no value here; the caller answers ``FAILED``."""


def calculate(expression: str) -> str:
    """Return the value of ``expression`` as the text that follows it in a reply, or ``FAILED``.

    Integers have no decimal point, other exact decimals no trailing zeros; everything else is rounded to
    ``NUM_DIGITS`` significant digits. Never raises, whatever the text.

    >>> calculate("(3+7)/2*2"), calculate("0.1+0.2"), calculate("2/3"), calculate("1,000*1.50")
    ('10', '0.3', '0.6666666667', '1500')
    >>> calculate("'strawberry'.count('r')"), calculate("1/0"), calculate("open('x')")
    ('3', 'error', 'error')
    """
    text = expression.strip(" \t")
    if len(text) > MAX_CHARACTERS:
        return FAILED
    if "'" not in text and '"' not in text:
        text = _THOUSANDS.sub("", text)
    if not _ALPHABET.fullmatch(text):
        return FAILED
    try:
        value = _value(ast.parse(text, mode="eval").body, MAX_DEPTH)
    except (_NoValueError, SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return FAILED
    return _written(value) if isinstance(value, Fraction) else FAILED


def _value(node: ast.expr, depth: int) -> _Value:
    """Return the value of one node of the tree; ``depth`` more levels are allowed below it."""
    if depth == 0:
        raise _NoValueError
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant(value=int() | float() as literal) if not isinstance(literal, bool):
            # repr gives back the decimal that was written (0.1), not the binary float nearest to it.
            return _bounded(Fraction(repr(literal)))
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
            number = _number(operand, depth - 1)
            return -number if isinstance(sign, ast.USub) else number
        case ast.BinOp(left=left, op=op, right=right):
            return _bounded(_operate(op, _number(left, depth - 1), _number(right, depth - 1)))
        case ast.Call(func=ast.Attribute(value=inner, attr="count"), args=[argument], keywords=[]):
            whole, wanted = _value(inner, depth - 1), _value(argument, depth - 1)
            if isinstance(whole, str) and isinstance(wanted, str):
                return Fraction(whole.count(wanted))
    raise _NoValueError


def _number(node: ast.expr, depth: int) -> Fraction:
    value = _value(node, depth)
    if not isinstance(value, Fraction):
        raise _NoValueError
    return value


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def _operate(op: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    if isinstance(op, ast.Pow):
        # Bounded before it is computed: the result of a power is the one thing here that can be huge at once.
        if (
            right.denominator != 1
            or abs(right) > MAX_EXPONENT
            or _bits(left) * abs(int(right)) > 2 * MAX_BITS
        ):
            raise _NoValueError
        return left ** int(right)
    if type(op) not in _OPERATORS:
        raise _NoValueError
    return Fraction(_OPERATORS[type(op)](left, right))


def _bits(number: Fraction) -> int:
    return max(number.numerator.bit_length(), number.denominator.bit_length())


def _bounded(number: Fraction) -> Fraction:
    if _bits(number) > MAX_BITS:
        raise _NoValueError
    return number


def _written(number: Fraction) -> str:
    """Return ``number`` as plain digits: no exponent, no trailing zeros, no negative zero."""
    if number.denominator == 1:
        return str(number.numerator)
    with localcontext(prec=2 * MAX_BITS, rounding=ROUND_HALF_EVEN) as context:
        quotient = Decimal(number.numerator) / Decimal(number.denominator)
        if not _is_short_decimal(number):
            context.prec = NUM_DIGITS
            quotient = +quotient
        text = format(quotient, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_short_decimal(number: Fraction) -> bool:
    """Return whether ``number`` has at most ``NUM_DIGITS`` digits after the point."""
    scale: int = 10**NUM_DIGITS
    return scale % number.denominator == 0
