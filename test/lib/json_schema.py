"""Judges documents by a JSON Schema: argument: the schema; standard input: one
object with a "definition" a line; standard output: "1" or "0" a line.  An implementation of
JSON Schema that is not ours."""
import json
import sys

import jsonschema

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for line in sys.stdin:
    print(int(validator.is_valid(json.loads(line)["definition"])))
