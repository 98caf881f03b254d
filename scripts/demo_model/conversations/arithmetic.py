"""Sums, differences, products and word problems.

Without reasoning, numbers of three digits are added and subtracted in the answer, digit by
digit from the right, before the result is said: the result in one go would have to be
written from its left end, which the carries reach last. With reasoning that work stands in
the reasoning.
"""

from .source import exchange

PLURALS = ["apples", "pens", "books", "coins", "cards", "eggs"]
PRODUCTS = ["units", "widgets", "chairs", "lamps", "boxes", "toys", "parts"]
COSTS = ["hours", "minutes", "days", "dollars"]
SPOKEN = {"+": "plus", "-": "minus", "*": "times"}


def result(operator, a, b):
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def column_work(operator, a, b):
    """The written method, from the last digit to the first: '7+3=10; 9+0+1=10; 5+8+1=14'."""
    if operator == "-" and a < b:
        return f"{a} < {b}, so minus {b} - {a}: " + column_work("-", b, a)
    if operator == "*" and max(a, b) <= 12:
        return f"{a}*{b}={a * b}"
    if operator == "*" and b >= 10:
        a, b = b, a
    upper = [int(digit) for digit in str(a)[::-1]]
    lower = [int(digit) for digit in str(b)[::-1]]
    if operator == "+" and len(lower) > len(upper):
        upper, lower = lower, upper
    steps, carry = [], 0
    for i, digit in enumerate(upper):
        other = lower[i] if i < len(lower) else None
        if operator == "+":
            terms = [digit] + ([other] if other is not None else []) + ([1] if carry else [])
            total = sum(terms)
            steps.append("+".join(map(str, terms)) + (f"={total}" if len(terms) > 1 else ""))
            carry = total // 10
        elif operator == "-":
            digit, other = digit - carry, other or 0
            carry = int(digit < other)
            steps.append(f"{digit + 10 * carry}-{other}={digit + 10 * carry - other}")
        else:
            total = digit * b + carry
            steps.append(f"{digit}*{b}" + (f"+{carry}" if carry else "") + f"={total}")
            carry = total // 10
    return "; ".join(steps)


def _drawn_product(source):
    draw = source.random.random()
    if draw < 0.45:
        return source.integer(2, 12), source.integer(2, 12)
    if draw < 0.85:
        return source.integer(11, 99), source.integer(2, 9)
    return source.integer(1, 9) * source.pick([10, 100]), source.integer(2, 9)


def operands(source, operator, digits):
    """Two numbers whose pair is on the source's side of the split; small ones are on both."""
    while True:
        if operator == "*":
            a, b = _drawn_product(source)
            common = max(a, b) <= 12
        else:
            a = source.number(digits)
            b = source.number(digits if source.chance(0.7) else source.integer(1, digits))
            if operator == "-" and not source.evaluating and source.chance(0.3):
                below = 10 ** (digits - 1)  # the first digit alike: the next ones decide
                b = a // below * below + source.integer(0, below - 1)
            if (operator == "-" and a < b and source.chance(0.8)) or (
                    operator == "+" and source.chance(0.3)):
                a, b = b, a
            common = max(a, b) <= 9
        if common or source.allows_sum(operator, a, b):
            return a, b


def _answer(operator, a, b, think, said):
    """The answer's text and the reasoning, if any; `said` is the answer's last sentence."""
    if think:
        return said, column_work(operator, a, b)
    if operator != "*" and max(a, b) > 99:
        return f"{column_work(operator, a, b)}. So {said}", None
    return said, None


def calculation(source, operator=None, digits=None, think=False):
    operator = operator or source.pick("+-**" if think else "++--*")
    a, b = operands(source, operator, digits or source.pick(
        [1, 2, 3, 3, 3] if think else [1, 2, 2, 2, 3, 3]))
    spoken = SPOKEN[operator]
    question = source.pick([
        f"What is {a} {operator} {b}?", f"Calculate {a} {operator} {b}.",
        f"{a} {operator} {b} = ?", f"How much is {a} {spoken} {b}?",
        f"What is {a} {spoken} {b}?", f"Compute {a} {operator} {b}"])
    said = f"{a} {operator} {b} = {result(operator, a, b)}."
    return exchange(question, *_answer(operator, a, b, think, said))


def _rate_problem(source, think):
    while True:
        count = source.pick([source.integer(1, 9) * 100, source.integer(1, 9) * 10,
                             source.integer(2, 12), source.integer(11, 99)])
        each = source.integer(2, 9)
        if count <= 12 or source.allows_sum("*", count, each):
            break
    things, unit = source.pick(PRODUCTS), source.pick(COSTS)
    question = source.pick([
        f"{count} {things} at {each} {unit} each: how many {unit}?",
        f"We make {count} {things}. Each one takes {each} {unit}. How many {unit} in total?",
        f"A factory builds {count} {things} and each needs {each} {unit}. "
        f"How many {unit} does it need?",
        f"How many {unit} do {count} {things} need at {each} {unit} each?"])
    total = count * each
    return exchange(question, f"{count} * {each} = {total}, so the answer is {total} {unit}.",
                    column_work("*", count, each) if think else None)


def _gain_or_loss_problem(source, think):
    things, name = source.pick(PLURALS), source.name()
    operator = source.pick("+-")
    while True:
        digits = source.pick([1, 2, 2, 3]) if think else source.pick([1, 2, 2])
        a, b = operands(source, operator, digits)
        if operator == "+" or a >= b:
            break
    question = source.pick([
        f"{name} has {a} {things} and gets {b} more. How many {things} now?",
        f"There are {a} {things} in one box and {b} in another. How many {things} together?",
    ] if operator == "+" else [
        f"{name} has {a} {things} and gives away {b}. How many {things} are left?",
        f"A shop had {a} {things} and sold {b}. How many {things} are left?"])
    left = result(operator, a, b)
    said = f"{a} {operator} {b} = {left}, so the answer is {left} {things}."
    return exchange(question, *_answer(operator, a, b, think, said))


def word_problem(source, think=False):
    draw = source.random.random()
    if draw < 0.45:
        return _rate_problem(source, think)
    if draw < (0.9 if source.evaluating else 0.8):
        return _gain_or_loss_problem(source, think)
    things, children, each = (source.pick(PLURALS), source.integer(2, 10),
                              source.integer(2, 10))
    total = children * each
    return exchange(
        f"Share {total} {things} between {children} children. "
        f"How many {things} does each get?",
        f"{total} / {children} = {each}, so the answer is {each} {things}.",
        f"{children}*{each}={total}" if think else None)
