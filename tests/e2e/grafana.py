"""Reads the dashboard into Grafana's own model of one and writes it out again: prints what the model does not know, which Grafana
would not either.

Usage: grafana.py DASHBOARD
"""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# A file that is provisioned has no number yet; the others belong to the data source, not to the dashboard.
ELSEWHERE = {"id", "titleFormat", "textFormat"}


def lost(before, after, place):
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{place}.{key}")
            elif key not in ELSEWHERE:
                yield f"{place}.{key} is not known"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{place}[{number}]")
    elif before != after:
        yield f"{place} is {before!r} and becomes {after!r}"


register_default_plugins()
with open(sys.argv[1]) as file:
    written = json.load(file)
read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
for line in lost(written, read, "dashboard"):
    print(line)
