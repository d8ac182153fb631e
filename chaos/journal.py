#!/usr/bin/env python3
"""Judges a journal: the Chaos Toolkit holds the steady state against its tolerances, and leaves those of the method's probes to this.

journal.py FILE    one line for each step; ends with 1 if the experiment deviated, or if a step was not as it should be
"""

import json
import sys

from chaoslib.hypothesis import within_tolerance


def is_fine(step):
    """Whether a step of the method or the rollbacks did what it should."""
    activity, output = step["activity"], step.get("output")
    if step["status"] != "succeeded":
        return False
    if "tolerance" in activity:
        return within_tolerance(activity["tolerance"], output)
    # What a process says of itself.
    return not (isinstance(output, dict) and output.get("status"))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        journal = json.load(file)
    fine = journal["status"] == "completed" and not journal["deviated"]
    states = journal.get("steady_states", {})
    during = states.get("during") or []
    held = sum(1 for state in during if state["steady_state_met"])
    checks = [("steady before", states.get("before")), ("steady after", states.get("after"))]
    for name, state in checks:
        met = bool(state) and state["steady_state_met"]
        fine = fine and met
        print(f"  {'ok  ' if met else 'FAIL'} {name}")
    fine = fine and held == len(during)
    print(f"  {'ok  ' if held == len(during) else 'FAIL'} steady meanwhile: {held} of {len(during)} times")
    for step in journal["run"] + journal["rollbacks"]:
        met = is_fine(step)
        fine = fine and met
        said = "" if met else f": {json.dumps(step.get('output') or step.get('exception'))[:300]}"
        print(f"  {'ok  ' if met else 'FAIL'} {step['activity']['name']}{said}")
    print(f"  {journal['title'] if 'title' in journal else journal['experiment']['title']}: {'went well' if fine else 'DEVIATED'}, {journal['duration']:.1f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
