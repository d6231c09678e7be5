"""Stands in for `python -m captioner finetune` and `gate`: quick, and as bad as the environment says.

STEPS of work of 20 ms each, kept in the state folder; FAILS names a command that breaks, KILLED one that is killed amid
its work, TOO_FEW ends fine-tuning with status 3, REFUSES makes the gate say no, BROKEN writes a checkpoint that cannot
be read.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS = int(os.environ.get("STEPS", "3"))


def main() -> int:
    options = arguments().parse_args()
    print(f"{options.command} began", file=sys.stderr, flush=True)
    if os.environ.get("FAILS") == options.command:
        print("It broke on purpose.", file=sys.stderr)
        print("\r 50%|█████     | 1/2 [00:01<00:01,  1.00step/s]", file=sys.stderr)
        return 1
    if os.environ.get("KILLED") == options.command:
        print("\r 50%|█████     | 1/2 [00:01<00:01,  1.00step/s]", end="", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    labels = [json.loads(line) for line in options.labels.read_text().splitlines()]
    return finetune(options, labels) if options.command == "finetune" else gate(options, labels)


def finetune(options: argparse.Namespace, labels: list[dict[str, object]]) -> int:
    if os.environ.get("TOO_FEW"):
        print("12 votes are too few.", file=sys.stderr)
        return 3
    state = options.out.with_suffix("")
    state.mkdir(exist_ok=True)
    done = len(list(state.iterdir()))
    for step in range(done, STEPS):
        time.sleep(0.02)
        state.joinpath(str(step)).write_text("done")
    write(options.out, options.model.read_bytes())
    print("some words")
    print(json.dumps({"steps": STEPS, "resumed": done, "labels": len(labels)}))
    return 0


def gate(options: argparse.Namespace, labels: list[dict[str, object]]) -> int:
    time.sleep(0.02 * STEPS)
    holds = not os.environ.get("REFUSES")
    sentence = "Approval rises." if holds else "It says the same of everything."
    reason = {"what": "approval", "before": 0.5, "after": 0.6, "low": 0.55, "high": 0.65, "holds": holds}
    print(json.dumps({"promote": holds, "reasons": [reason | {"sentence": sentence}], "labels": len(labels)}))
    return 0


def write(out: Path, checkpoint: bytes) -> None:
    """The parent's checkpoint under the new name, at once."""
    size = int.from_bytes(checkpoint[:8], "little")
    header = json.loads(checkpoint[8 : 8 + size])
    header["__metadata__"]["name"] = out.stem
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    part = out.with_name(out.name + ".part")
    data = b"nothing" if os.environ.get("BROKEN") else checkpoint[8 + size :]
    part.write_bytes(len(written).to_bytes(8, "little") + written + data)
    part.replace(out)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("finetune", "gate"))
    for name in ("labels", "model", "out", "candidate"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads")
    parser.add_argument("--data", action="append")
    parser.add_argument("recipe", nargs="*")
    return parser


if __name__ == "__main__":
    sys.exit(main())
