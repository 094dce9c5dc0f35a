"""Fails where dvc.lock was made from other code or configuration than lies here, since someone forgot `dvc repro`.

    dvc status --json | python .ci/check-lock.py

What is merely not there, as in a fresh clone, is no change.
"""

import json
import sys

changed = set()
for stage, changes in json.load(sys.stdin).items():
    for change in changes:
        if change == "changed command":
            changed.add(f"the command of {stage}")
        elif "changed deps" in change:
            changed |= {place for place, how in change["changed deps"].items() if how != "deleted"}
if changed:
    sys.exit(f"error: dvc.lock is of another state of {', '.join(sorted(changed))}: uv run dvc repro")
