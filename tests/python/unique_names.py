"""Hooks of schemathesis: what no schema can say.

Two clients cannot have the same name, so a name that is in order is made one that nobody has; then
whatever agrees with the schema has to be accepted.
"""

import itertools
import os

import schemathesis

nth = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    name = body.get("client_name") if isinstance(body, dict) else None
    if isinstance(name, str) and name.strip():
        case.body = {**body, "client_name": f"{name} {os.getpid()}.{next(nth)}"}
