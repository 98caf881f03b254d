"""Functions that are offered, called, and answered from.

Each family of functions has one meaning, a few well-known names, and verbs and nouns that
other names are made of. In training most functions get such a made-up name, or two words
at random, so that the name must be read from the offer. Held-out names (by the hash of
the name) are met in the evaluation only.
"""

import dataclasses
import json
from typing import Callable

from . import arithmetic, descriptions, knowledge, thoughts, vocabulary
from .source import exchange


REFUSAL = "I have no tool for that."


@dataclasses.dataclass
class Request:
    question: str
    arguments: dict  # by the family's own names of parameters
    result: dict
    answer: str


@dataclasses.dataclass
class Family:
    """`parameters`: name -> (type, other names, description or list of values)."""

    known: list
    verbs: list
    nouns: list
    descriptions: list
    parameters: dict
    request: Callable


def _weather(source):
    city = source.city()
    degrees, sky = source.integer(-9, 38), source.pick(
        ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy"])
    question = source.pick([
        f"What is the weather in {city}?", f"How is the weather in {city} today?",
        f"Weather in {city}?", f"Is it warm in {city}?", f"Tell me the weather in {city}."])
    return Request(question, {"city": city}, {"temperature": degrees, "condition": sky},
                   f"It is {degrees} degrees and {sky} in {city}.")


def _clock_time(source):
    return f"{source.integer(0, 23):02d}:{source.integer(0, 59):02d}"


def _time(source):
    city, time = source.city(), _clock_time(source)
    question = source.pick([f"What time is it in {city}?", f"Tell me the time in {city}.",
                            f"What is the local time in {city}?", f"Time in {city}?"])
    return Request(question, {"city": city}, {"time": time}, f"The time in {city} is {time}.")


def _calculation(source):
    operator = source.pick("+-*/")
    a, b = source.number(source.integer(2, 4)), source.number(source.integer(1, 4))
    text = f"{a} {operator} {b}"
    value = a // max(b, 1) if operator == "/" else arithmetic.result(operator, a, b)
    question = source.pick([f"What is {text}?", f"Calculate {text}.", f"Compute {text}",
                            f"{text} = ?"])
    return Request(question, {"expression": text}, {"result": value}, f"{text} = {value}.")


def _search(source):
    subject = source.pick([
        " ".join(source.plain_words(2)), f"history of {source.city()}",
        f"{source.name()} {source.made_up_name()}",
        f"best {source.pick(vocabulary.FOODS)} in {source.city()}",
        f"how to {source.pick(['cook', 'clean', 'paint', 'build', 'buy'])} a "
        + source.pick(vocabulary.ITEMS)])
    found = source.pick([f"{subject} is popular in {source.city()}.",
                         f"{source.integer(2, 99)} pages about {subject}.",
                         f"See the page on {subject}."])
    question = source.pick([f"Search for {subject}.", f"Look up {subject}.",
                            f"Search the web for {subject}.", f"Find {subject} on the web."])
    return Request(question, {"query": subject}, {"result": found}, f"I found this: {found}")


def _conversion(source):
    first, second = source.random.sample(source.pick(
        [["USD", "EUR", "GBP", "JPY"], ["km", "miles", "meters", "feet"],
         ["kg", "pounds", "grams"]]), 2)
    amount, value = source.integer(1, 999), source.integer(1, 9999)
    question = source.pick([f"Convert {amount} {first} to {second}.",
                            f"How many {second} are {amount} {first}?",
                            f"How much is {amount} {first} in {second}?"])
    return Request(question, {"amount": amount, "from": first, "to": second},
                   {"result": value}, f"{amount} {first} is {value} {second}.")


def _message(source):
    name = source.name()
    text = source.pick(["I am late", "see you at noon", "the report is done", "happy birthday",
                        "call me", f"the meeting is at {source.integer(8, 18)}",
                        f"please send the {source.pick(vocabulary.ITEMS)}"])
    question = source.pick([f"Send {name} the message: {text}", f"Write to {name}: {text}",
                            f"Tell {name}: {text}"])
    return Request(question, {"to": name, "message": text},
                   source.pick([{"status": "sent"}, {"ok": True}]),
                   f"I sent your message to {name}.")


def _timer(source):
    minutes = source.integer(1, 90)
    question = source.pick([f"Set a timer for {minutes} minutes.",
                            f"Start a timer: {minutes} minutes",
                            f"Timer for {minutes} minutes please."])
    return Request(question, {"minutes": minutes},
                   source.pick([{"status": "started"}, {"ok": True}]),
                   f"The timer is set for {minutes} minutes.")


def _alarm(source):
    time = _clock_time(source)
    question = source.pick([f"Wake me at {time}.", f"Set an alarm for {time}.",
                            f"Alarm at {time} please."])
    return Request(question, {"time": time}, source.pick([{"status": "set"}, {"ok": True}]),
                   f"The alarm is set for {time}.")


def _light(source):
    room, state = source.pick(vocabulary.ROOMS), source.pick(["on", "off"])
    question = source.pick([f"Turn {state} the light in the {room}.",
                            f"Switch the {room} light {state}.",
                            f"Light {state} in the {room}."])
    return Request(question, {"room": room, "state": state},
                   source.pick([{"status": "ok"}, {"ok": True}]),
                   f"The light in the {room} is now {state}.")


def _translation(source):
    text = " ".join(source.plain_words(source.integer(1, 3)))
    language = source.pick(["French", "German", "Spanish", "Italian", "Polish", "Dutch"])
    out = " ".join(source.made_up_name().lower() for _ in text.split())
    question = source.pick([f"Translate {text} to {language}.",
                            f"How do you say {text} in {language}?"])
    return Request(question, {"text": text, "language": language}, {"translation": out},
                   f"In {language}: {out}")


def _file(source):
    first, second = source.plain_words(2)
    path = first + source.pick(["", "_" + second, str(source.integer(1, 99))])
    path += source.pick([".txt", ".py", ".md", ".csv", ".json"])
    if source.chance(0.3):
        path = source.pick(["docs/", "src/", "data/"]) + path
    text = " ".join(source.plain_words(source.integer(2, 5)))
    question = source.pick([f"Read the file {path}.", f"Show me {path}.",
                            f"What is in {path}?", f"Open {path}."])
    return Request(question, {"path": path}, {"content": text},
                   f"The file {path} says: {text}")


def _stock(source):
    symbol = "".join(source.pick("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
                     for _ in range(source.integer(3, 4)))
    price = source.integer(2, 999)
    question = source.pick([f"What is the stock price of {symbol}?",
                            f"Price of {symbol} stock?", f"How is {symbol} stock doing?"])
    return Request(question, {"symbol": symbol}, {"price": price},
                   f"The price of {symbol} is {price} dollars.")


def _record(noun):
    def request(source):
        number = source.integer(1, 9999)
        status = source.pick(["open", "closed", "sent", "late", "paid", "ready", "lost", "new"])
        question = source.pick([f"What is the status of {noun} {number}?",
                                f"Look up {noun} {number}.", f"Show me {noun} {number}.",
                                f"Find {noun} number {number}."])
        result = source.pick([{"status": status}, {"id": number, "status": status},
                              {"status": status, "name": source.name()}])
        return Request(question, {"id": number}, result,
                       f"The status of {noun} {number} is {status}.")
    return request


_GET = ["get", "show", "check", "fetch", "read", "find"]
_SET = ["set", "start", "make", "add", "create", "new"]
FAMILIES = {
    "weather": Family(
        ["get_weather", "weather", "current_weather", "get_current_weather"], _GET,
        ["weather", "forecast", "climate", "city_weather", "temperature"],
        ["Get the current weather.", "Get the weather for a city",
         "Current weather of a place."],
        {"city": ("string", ["city", "location", "place", "town"], "The city name")}, _weather),
    "time": Family(
        ["get_time", "current_time", "get_current_time", "clock"], _GET,
        ["time", "local_time", "clock", "city_time", "hour"],
        ["Get the current time.", "Get the local time in a city", "Current time of a place."],
        {"city": ("string", ["city", "location", "place", "town"], "The place")}, _time),
    "calculator": Family(
        ["calculator", "calculate", "eval_math"], ["run", "do", "compute", "solve", "eval"],
        ["math", "sum", "expression", "arithmetic", "calculation"],
        ["Evaluate an arithmetic expression.", "A calculator for math expressions."],
        {"expression": ("string", ["expression", "expr", "formula", "input"],
                        "The expression to evaluate")}, _calculation),
    "search": Family(
        ["search", "web_search", "search_web"], ["search", "find", "query", "look_up", "get"],
        ["pages", "web", "internet", "results", "sites"],
        ["Search the web.", "Find pages on the web for a query."],
        {"query": ("string", ["query", "q", "text", "terms"], "The search query")}, _search),
    "convert": Family(
        ["convert", "convert_units", "unit_converter"], ["convert", "change", "turn", "do"],
        ["units", "amount", "value", "measure", "conversion"],
        ["Convert an amount between units.", "Convert units or money."],
        {"amount": ("number", ["amount", "value", "number"], ""),
         "from": ("string", ["from", "from_unit", "source"], "Source unit"),
         "to": ("string", ["to", "to_unit", "target"], "Target unit")}, _conversion),
    "message": Family(
        ["send_message", "send_email", "message"], ["send", "write", "post", "deliver"],
        ["message", "email", "mail", "note", "text"],
        ["Send a message to a person.", "Send an email."],
        {"to": ("string", ["to", "recipient", "name"], "Who gets it"),
         "message": ("string", ["message", "text", "body"], "The text")}, _message),
    "timer": Family(
        ["set_timer", "start_timer", "timer"], _SET, ["timer", "countdown", "kitchen_timer"],
        ["Start a timer.", "Set a timer in minutes."],
        {"minutes": ("integer", ["minutes", "duration", "length"], "Length in minutes")},
        _timer),
    "alarm": Family(
        ["set_alarm", "alarm", "wake_up"], _SET, ["alarm", "wake_up", "morning_alarm"],
        ["Set an alarm.", "Set an alarm clock."],
        {"time": ("string", ["time", "at", "when"], "Time as HH:MM")}, _alarm),
    "light": Family(
        ["set_light", "switch_light", "light"], ["set", "switch", "turn", "control", "change"],
        ["light", "lights", "lamp", "room_light"],
        ["Switch a light on or off.", "Control the lights."],
        {"room": ("string", ["room", "place", "where"], "The room"),
         "state": ("string", ["state", "value", "switch"], ["on", "off"])}, _light),
    "translate": Family(
        ["translate", "translate_text", "translator"], ["translate", "get", "make", "find"],
        ["translation", "text", "words", "language"],
        ["Translate text.", "Translate a text to a language."],
        {"text": ("string", ["text", "words", "input"], "The text"),
         "language": ("string", ["language", "target", "to"], "Target language")},
        _translation),
    "file": Family(
        ["read_file", "open_file", "get_file"], ["read", "open", "get", "show", "load"],
        ["file", "text_file", "document", "path"],
        ["Read a file.", "Return the content of a file."],
        {"path": ("string", ["path", "file", "filename"], "Path of the file")}, _file),
    "stock": Family(
        ["get_stock_price", "stock_price", "get_stock"], _GET,
        ["stock", "share_price", "quote", "stock_value"],
        ["Get a stock price.", "Look up the price of a stock."],
        {"symbol": ("string", ["symbol", "ticker", "stock"], "The stock symbol")}, _stock),
}
RECORDS = ["order", "ticket", "invoice", "customer", "user", "product", "booking", "task",
           "event", "package"]
for _noun in RECORDS:
    FAMILIES[_noun] = Family(
        ["get_" + _noun, "find_" + _noun, "fetch_" + _noun, "lookup_" + _noun],
        ["show", "load", "open", "check", "query", "read"],
        [_noun, _noun + "_status", _noun + "_info", _noun + "_by_id"],
        [f"Get one {_noun} by its number.", f"Look up a {_noun}."],
        {"id": ("integer", ["id", _noun + "_id", "number"], "")}, _record(_noun))
# What a question for a function of the family is about.
SUBJECTS = {
    "weather": "the weather", "time": "the time", "calculator": "a sum", "search": "a search",
    "convert": "a conversion", "message": "a message", "timer": "a timer",
    "alarm": "an alarm", "light": "a light", "translate": "a translation",
    "file": "a file", "stock": "a stock price"}
for _noun in RECORDS:
    SUBJECTS[_noun] = ("an " if _noun in ("order", "invoice", "event") else "a ") + _noun
KNOWN_NAMES = {name for family in FAMILIES.values() for name in family.known}


def is_new_name(source, name):
    """Whether the name may stand for a made-up one on the source's side of the split."""
    return name not in KNOWN_NAMES and source.allows("tool", name)


def _made_up_function_name(source, family):
    while True:
        words = f"{source.pick(family.verbs)}_{source.pick(family.nouns)}".split("_")
        if source.chance(0.25):
            words.insert(source.integer(0, len(words)), source.pick(
                ["my", "the", "one", "api", "home", "fast", "v2", "all", "tool"]))
        if not source.evaluating and source.chance(0.15):
            words = source.plain_words(source.integer(1, 3))
            if source.chance(0.4):
                words[-1] = source.made_up_word()
        name = "_".join(words)
        if source.chance(0.2):
            name = words[0] + "".join(word.capitalize() for word in words[1:])
        if is_new_name(source, name):
            return name


class Tool:
    """A function as offered: the family's meaning under a name and names of parameters."""

    def __init__(self, source, kind, names):
        family = FAMILIES[kind]
        self.kind, self.source, self.family = kind, source, family
        new = names == "new" or (names == "any" and source.chance(0.7))
        self.name = _made_up_function_name(source, family) if new else source.pick(
            family.known)
        self.renamed = {}
        for parameter, (_, others, _) in family.parameters.items():
            self.renamed[parameter] = source.pick(others)
            if new and not source.evaluating and source.chance(0.3):
                self.renamed[parameter] = source.plain_words(1)[0]
        if len(set(self.renamed.values())) < len(self.renamed):
            self.renamed = {parameter: parameter for parameter in family.parameters}
        self.described = source.chance(0.6)
        self.description = source.pick(family.descriptions)

    def describe_at_length(self):
        self.description = descriptions.long_description(
            self.source, self.name, self.description)

    def schema(self):
        properties = {}
        for parameter, (kind, _, about) in self.family.parameters.items():
            entry = {"type": kind}
            if isinstance(about, list):
                entry["enum"] = about
            elif about and self.described:
                entry["description"] = about
            properties[self.renamed[parameter]] = entry
        return {"type": "function", "function": {
            "name": self.name, "description": self.description,
            "parameters": {"type": "object", "properties": properties,
                           "required": list(properties)}}}

    def use(self, survey=None):
        """Question, call, result and answer: four messages. `survey`: what is offered,
        for a call with reasoning."""
        request = self.family.request(self.source)
        call = {"name": self.name, "arguments": {
            self.renamed[key]: value for key, value in request.arguments.items()}}
        reply = {"role": "assistant", "content": "",
                 "tool_calls": [{"type": "function", "function": call}]}
        if survey:
            reply["think"] = thoughts.choice(survey, SUBJECTS[self.kind])
        return [
            {"role": "user", "content": request.question}, reply,
            {"role": "tool", "content": json.dumps(request.result)},
            {"role": "assistant", "content": request.answer}]


def _choice(source, tools):
    """Only which function is meant, or that none is: in training, since it is this that is
    hard, and a call with its result is many tokens more."""
    if source.chance(0.3):
        return _refused(source, {tool.kind for tool in tools}, before="Only name the function: ")
    tool = source.pick(tools)
    return exchange(f"Only name the function: {tool.family.request(source).question}",
                    json.dumps({"name": tool.name}))


def _refused(source, kinds, survey=None, before=""):
    """A question for a function that is not offered; in training often nearly one that is."""
    missing = [kind for kind in FAMILIES if kind not in kinds and kind != "calculator"]
    if not source.evaluating and kinds & set(RECORDS) and source.chance(0.5):
        missing = [kind for kind in RECORDS if kind not in kinds]
    kind = source.pick(missing)
    return exchange(before + FAMILIES[kind].request(source).question, REFUSAL,
                    survey and thoughts.choice(survey, SUBJECTS[kind]))


def _without_tool(source, kinds, survey):
    """A question that no offered function is for."""
    draw = source.random.random()
    if not source.evaluating:
        draw *= 2  # to say no is what is hard to learn
    if draw < 0.3 and "calculator" not in kinds:
        return arithmetic.calculation(source, think=bool(survey))
    if draw < 0.6:
        return knowledge.chat(source)
    return _refused(source, kinds, survey)


def offered(source, count, names, calculators=0.1):
    """`count` functions whose names differ; `names` is 'known', 'new' or 'any'.

    In training often such as are for alike questions, so that the right one must be found.
    `calculators`: how often one is among them; it decides how a sum is answered."""
    alike = not source.evaluating and source.chance(0.3)
    families = source.random.sample(RECORDS if alike else list(FAMILIES), count)
    if not source.evaluating and "calculator" not in families and source.chance(calculators):
        families[-1] = "calculator"
        source.random.shuffle(families)
    while True:
        tools = [Tool(source, kind, names) for kind in families]
        if len({tool.name for tool in tools}) == count:
            return tools


def _offer(source, names, style):
    """(functions, the schemas that the model sees).

    `style`: 'plain' is up to four functions, 'many' five to eight, 'long' some that
    describe themselves at length, among an agent's own."""
    counts = [5, 6, 7, 8] if style == "many" else (
        [1, 1, 2, 2, 3, 4] if source.evaluating else [1, 2, 2, 3, 4, 4])
    tools = offered(source, source.pick(counts), names, 0.35 if style == "long" else 0.15)
    if style == "long":
        for tool in tools:
            if source.evaluating or source.chance(0.7):
                tool.describe_at_length()
    schemas = [tool.schema() for tool in tools]
    for schema in descriptions.agent_functions(
            source, source.pick([0, 0, 1, 2]) if style == "long" else 0):
        schemas.insert(source.integer(0, len(schemas)), schema)
    return tools, schemas


def lookup_drill(source):
    """The last step of the reasoning before a call, many times over."""
    functions = [(tool.name, SUBJECTS[tool.kind])
                 for tool in offered(source, source.integer(1, 8), "any")]
    there = [subject for _, subject in functions]
    asked = [source.pick(there) if source.chance(0.5) else source.pick(list(SUBJECTS.values()))
             for _ in range(source.integer(5, 10))]
    return exchange(f"Offered: {thoughts.survey(functions)}. Find: {'; '.join(asked)}",
                    " ".join(thoughts.found(functions, subject) for subject in asked))


def session(source, turns=None, names="any", need=None, style="plain", think=False):
    """(schemas, exchanges); an exchange is its list of messages.

    `need`: 'call' has every turn call a function, 'none' has none do so. `style`: see
    `_offer`. `think` has reasoning written for what needs some."""
    tools, schemas = _offer(source, names, style)
    kinds = {tool.kind for tool in tools}
    subjects = {tool.name: SUBJECTS[tool.kind] for tool in tools}
    survey = [(schema["function"]["name"],
               subjects.get(schema["function"]["name"], thoughts.OTHER))
              for schema in schemas] if think else None
    exchanges = []
    # Many turns an offer: the offer is long, and only replies are learned from.
    if not (turns or need or think) and source.chance(0.6):
        return schemas, [_choice(source, tools) for _ in range(source.integer(8, 16))]
    # One with reasoning: a server leaves out that of earlier turns, which could be copied.
    turns = turns or (1 if think else source.integer(
        *source.pick([(1, 4), (5, 12), (8, 14)])))
    for _ in range(turns):
        if need == "none" or (need is None and source.chance(0.45 if think else 0.3)):
            exchanges.append(_without_tool(source, kinds, survey))
        else:
            exchanges.append(source.pick(tools).use(survey))
    return schemas, exchanges
