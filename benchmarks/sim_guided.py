"""Guided search beside pure random: `python benchmarks/sim_guided.py OUT_DIR [REPETITIONS] [RUNS_MAX] [BUG ...]`.

Runs are short, one second of load on three nodes, so that hundreds of them can be repeated.

For each seeded bug and each repetition, both arms run plans of the same configuration until one is invalid, by its
history or by an invariant, or `RUNS_MAX` is reached. The random arm takes one fresh seed after the other; the guided
arm is `harness.guided`. Both start from seeds of their own repetition. Results are appended to OUT_DIR/guided.jsonl, so
that it can be stopped and started again; the figure OUT_DIR/guided.png needs matplotlib. Counts of runs do not depend
on what else the machine does.
"""

import itertools
import json
import random
import sys
from pathlib import Path

from harness import plan as plans
from harness.config import Config
from harness.guided.corpus import Corpus
from harness.guided.features import run_with_features
from harness.shrink.attempt import attempt

BUGS = ("stale-suffix-retained", "retry-not-deduped")
ARMS = ("random", "guided")
SEEDS_APART = 1_000_000
RESAMPLES = 4_000


def config_of(bug):
    return Config(nodes=3, concurrency=4, time_limit_s=1.0, rate_hz=20.0, recovery_s=0.3, bug=bug)


def failed(run):
    return bool(run.violations or (run.record is not None and run.record.violations))


def random_arm(config, seed, runs_max):
    for number in range(runs_max):
        if failed(attempt(plans.draw(config, seed + number))):
            return number + 1
    return None


def guided_arm(config, seed, runs_max):
    corpus = Corpus(config, seed)
    for number in range(runs_max):
        plan = corpus.next()
        run, features = run_with_features(plan)
        if failed(run):
            return number + 1
        corpus.learn(plan, features)
    return None


def measure(path, bugs, repetitions, runs_max):
    done = {(row["bug"], row["arm"], row["repetition"]) for row in rows_of(path)}
    for repetition, bug, arm in itertools.product(range(repetitions), bugs, ARMS):
        if (bug, arm, repetition) in done:
            continue
        run = random_arm if arm == "random" else guided_arm
        runs = run(config_of(bug), SEEDS_APART * (repetition + 1), runs_max)
        row = {"bug": bug, "arm": arm, "repetition": repetition, "runs": runs, "runs_max": runs_max}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(rows):
    """Per bug: how many were found in each arm, mean runs (what was not found counts as all), ratio with 95 %."""
    table = []
    rng = random.Random(1)
    for bug in dict.fromkeys(row["bug"] for row in rows):
        counts = {
            arm: [row["runs"] or row["runs_max"] for row in rows if (row["bug"], row["arm"]) == (bug, arm)]
            for arm in ARMS
        }
        found = {
            arm: sum(row["runs"] is not None for row in rows if (row["bug"], row["arm"]) == (bug, arm))
            for arm in ARMS
        }
        ratios = sorted(
            mean(rng.choices(counts["random"], k=len(counts["random"])))
            / mean(rng.choices(counts["guided"], k=len(counts["guided"])))
            for _ in range(RESAMPLES)
        )
        table.append(
            {
                "bug": bug, "repetitions": min(map(len, counts.values())),
                **{f"{arm}_found": found[arm] for arm in ARMS},
                **{f"{arm}_mean_runs": round(mean(counts[arm]), 1) for arm in ARMS},
                "speedup": round(mean(counts["random"]) / mean(counts["guided"]), 2),
                "speedup_95": [round(ratios[RESAMPLES // 40], 2), round(ratios[-RESAMPLES // 40], 2)],
            }
        )  # fmt: skip
    return table


def mean(numbers):
    return sum(numbers) / len(numbers)


def draw(rows, table, path):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(table), figsize=(3.6 * len(table), 3.4), sharey=True, squeeze=False)
    for axis, line in zip(axes[0], table, strict=True):
        for arm, colour in zip(ARMS, ("#888888", "#c0392b"), strict=True):
            mine = [row for row in rows if (row["bug"], row["arm"]) == (line["bug"], arm)]
            runs = sorted(row["runs"] for row in mine if row["runs"] is not None)
            xs = [0, *runs, max(row["runs_max"] for row in mine)]
            ys = [0, *((at + 1) / len(mine) for at in range(len(runs))), len(runs) / len(mine)]
            axis.step(
                xs, ys, where="post", color=colour, label=f"{arm}: mean {line[f'{arm}_mean_runs']:g} runs"
            )
        low, high = line["speedup_95"]
        axis.set_title(f"{line['bug']}\nx {line['speedup']:g}  (95 %: {low:g} to {high:g})", fontsize=9)
        axis.set_xlabel("runs")
        axis.set_ylim(0, 1.02)
        axis.set_xlim(left=0)
        axis.legend(fontsize=7, loc="lower right")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("found, part of the repetitions")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    repetitions = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    runs_max = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    path = out / "guided.jsonl"
    measure(path, sys.argv[4:] or BUGS, repetitions, runs_max)
    rows = rows_of(path)
    table = summary(rows)
    draw(rows, table, out / "guided.png")
    for line in table:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
