"""Holds answers against the shapes in client_shapes.json.

Reads a list of {"shape": NAME, "answer": …} from standard input; says how many there were, or which
of them does not have its shape.
"""

import json
import pathlib
import sys

import jsonschema_rs

shapes = json.loads(pathlib.Path(__file__).with_name("client_shapes.json").read_text())
seen = json.load(sys.stdin)
for nth, each in enumerate(seen, start=1):
    schema = {"$ref": f"#/$defs/{each['shape']}", **shapes}
    for error in jsonschema_rs.validator_for(schema).iter_errors(each["answer"]):
        sys.exit(f"answer {nth}, {each['shape']}: {error}")
print(len(seen), "answers")
