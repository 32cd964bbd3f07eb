"""The command of ``make faults``."""

from __future__ import annotations

import argparse
import sys

from bench import harness
from tests import faults


def main() -> None:
    """Inject the faults and print the table; the exit status is 1 if anything was lost, or could not be tried."""
    parser = argparse.ArgumentParser(description=faults.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=faults.FAULTS, nargs="+", default=list(faults.FAULTS))
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = [faults.run(name, args.trials or faults.FAULTS[name].trials, args.seed) for name in args.only]
    harness.progress("")
    table = [{**row, "how": row["how"] or "-", "lost": row["lost"].partition("\n")[0][:60] or "-"} for row in rows]
    harness.report(table, {"benchmark": "faults", "faults": rows})
    sys.exit(any(row["lost"] for row in rows))


if __name__ == "__main__":
    main()
