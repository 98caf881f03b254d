"""Texts that grammars of JSON schemas allow are valid: by an independent judge, Python's
jsonschema. The schemas are those of the public test suite, and some of our own.

    json_schema_judge_test.py GRAMMAR_SAMPLES

Exit status 77: no jsonschema here (Debian: python3-jsonschema)."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(os.path.abspath(__file__)).parent.parent.parent
# oneOf is read as anyOf.
OVERLAPPING = {"oneOf.json", "allOf.json"}

OWN = [
    {"type": "object", "properties": {
        "id": {"type": "string", "format": "uuid"},
        "when": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "mail": {"type": "string", "format": "email"},
        "from": {"type": "string", "format": "ipv4"},
        "to": {"type": "string", "format": "ipv6"},
        "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "price": {"type": "number", "minimum": 0, "multipleOf": 0.01},
        "even": {"type": "integer", "multipleOf": 2, "minimum": -10, "maximum": 1000},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{3,5}$"},
        "text": {"type": "string", "minLength": 3, "maxLength": 9}},
     "required": ["id", "when", "day", "mail", "from", "to", "share", "price", "even",
                  "code", "text"], "additionalProperties": False},
    {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(12)},
     "additionalProperties": {"type": "string"}},
    {"type": "array", "items": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/pair"}]},
     "minItems": 2, "maxItems": 4, "$defs": {"pair": {
         "type": "array", "prefixItems": [{"enum": ["x", "y"]}, {"type": "boolean"}],
         "minItems": 2, "items": False}}},
    {"type": "integer", "minimum": -17, "exclusiveMaximum": 1203},
    {"type": "number", "exclusiveMinimum": -0.35, "exclusiveMaximum": 12.075},
    {"type": "object", "patternProperties": {"^a": {"type": "integer"},
                                             "z$": {"type": "string"}}},
    {"type": "object", "propertyNames": {"maxLength": 3}, "minProperties": 1,
     "additionalProperties": {"type": "boolean"}},
    {"allOf": [{"type": "string", "pattern": "^[a-f]*$"}, {"pattern": "^a"},
               {"minLength": 2, "maxLength": 5}]},
]


def schemas():
    for schema in OWN:
        yield "own", schema
    for path in sorted((ROOT / "tests/fixtures/json_schema_suite").glob("*.json")):
        if path.name in OVERLAPPING:
            continue
        for group in json.loads(path.read_text(encoding="utf-8")):
            yield f"{path.name}: {group['description']}", group["schema"]


def main():
    try:
        import jsonschema
    except ImportError:
        print("no jsonschema: skipped")
        return 77
    cases = list(schemas())
    lines = "".join(json.dumps(schema) + "\n" for _, schema in cases)
    output = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True,
                            timeout=600, check=True).stdout.splitlines()
    assert len(output) == len(cases), (len(output), len(cases))
    texts = failures = written = 0
    for (name, schema), line in zip(cases, output):
        answer = json.loads(line)
        if name == "own":
            assert answer.get("texts"), (schema, answer)
        validator = jsonschema.Draft202012Validator(
            schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
        written += "texts" in answer
        for text in answer.get("texts", []):
            texts += 1
            try:
                validator.validate(json.loads(text))
            except (ValueError, jsonschema.ValidationError) as error:
                failures += 1
                print(f"{name}\n  {json.dumps(schema)}\n  {text}\n  {error}\n")
    print(f"{texts} texts of {written} schemas ({len(cases)} in all), {failures} not valid")
    assert texts >= 500, texts
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
