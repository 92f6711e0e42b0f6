"""Renders the Helm chart CHART with the values in the JSON file VALUES, offline, by Helm's own code:
the manifests of a release `nightly` on standard output, one YAML document after the other. A
template's or a schema's refusal goes to standard error, and the status is then 3. With `lint` for a
third argument Helm's linter has its say as well, and what it has against the chart is such a refusal.
"""

import json
import sys

import helm_python
from helm_python import Chart
from helm_python import chart as chart_module

path, values = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
try:
    if sys.argv[3:] == ["lint"]:
        report = chart_module.lint(path, values, strict=True, namespace="collibra")
        found = [m for m in report["messages"] if m["severity"] >= 2]
        if found or report["errors"]:
            print(json.dumps(found + report["errors"]), file=sys.stderr)
            sys.exit(3)
    with Chart.load(path) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name="nightly", namespace="collibra")
except helm_python.HelmError as refusal:
    print(refusal, file=sys.stderr)
    sys.exit(3)
for name, text in sorted(rendered.items()):
    if name.endswith(".yaml") and text.strip():
        print(f"---\n# {name}\n{text}")
