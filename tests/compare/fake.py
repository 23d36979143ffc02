"""Made-up races for the tests of the report: every shape a summary can take, from one seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

NAMES = ("muon", "adamw", "lion", "sgd", "adagrad_norm", "prodigy")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><b>bold</b>",
    "größer Ω 優化 🏔 %{x} {{ 7*7 }} &lt;i&gt;",
    "'; alert(3); //",
    "a-very-long-method-name-" * 6,
)
METRIC = "loss"
SEEDS_FROM = 1


def race(
    names: Sequence[str] = NAMES,
    *,
    seeds: int = 10,
    points: int = 30,
    trials: int = 12,
    diverged: bool = True,
    interrupted: bool = False,
    rate: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """A summary of schema thalweg.race/1.

    With `diverged`, the third method misses two of its seeds and the fifth fails on one; the sixth
    is parameter-free. `rate` races an accuracy that is maximized.
    """
    draw = np.random.default_rng(seed)
    common = draw.normal(0, 0.04, seeds)
    finals = 0.11 * np.exp(np.linspace(0, 0.8, len(names)))
    methods = [
        _method(i, name, finals[i], common, points, trials, diverged, interrupted, rate, draw)
        for i, name in enumerate(names)
    ]
    values = {m["name"]: [_final(run, rate) for run in m["runs"]] for m in methods}
    verdicts = _verdicts({k: v for k, v in values.items() if v}, seeds, rate)
    ranking = [_rank(name, results, rate) for name, results in values.items() if results]
    worst = -math.inf if rate else math.inf
    ranking.sort(key=lambda row: worst if row["median_final"] is None else row["median_final"])
    if rate:
        ranking.sort(key=lambda row: -(row["median_final"] or 0))
    known = [row["median_final"] for row in ranking if row["median_final"] is not None]
    failures = [failure for m in methods for failure in _failures(m)]
    total = len(names) * (trials + 2 * seeds)
    done = sum(len(m["trials"]) + len(m["runs"]) + len(m["default_runs"]) for m in methods)
    best = ranking[0]["name"] if ranking else None
    answer = (
        f"{best} is best on digits-mlp: its test {METRIC} is 14.8 % lower "
        f"than {ranking[1]['name']}'s "
        f"(96 % interval 13.5 % to 16.1 %), {seeds} paired seeds."
        if len(ranking) > 1
        else "No method has finished yet."
    )
    return {
        "schema": "thalweg.race/1",
        "title": f"digits-mlp: {len(names)} methods",
        "question": f"Which of {len(names)} methods ends with the lowest test {METRIC} on digits?",
        "answer": answer,
        "problem": {
            "name": "digits-mlp",
            "source": "built in",
            "metric": METRIC,
            "goal": "max" if rate else "min",
            "scale": "difference" if rate else "ratio",
            "parameters": 26122,
            "hash": "9f2c1b7a60d44e1b8a5a",
        },
        "protocol": {
            "budget": "420steps",
            "trials": trials,
            "seeds": seeds,
            "look": 1,
            "alpha": 0.04,
            "margin": 0.005 if rate else 0.01,
            "fewest_seeds": _fewest(max(1, len(verdicts))),
            "jobs": 2,
            "threads": 1,
            "backend": "loky",
            "exclusive": False,
            "adaptive": False,
        },
        "progress": {
            "done": done,
            "total": total,
            "failed": sum(f["status"] == "failed" for f in failures),
            "diverged": sum(f["status"] == "diverged" for f in failures),
            "interrupted": interrupted,
        },
        "methods": methods,
        "verdicts": verdicts,
        "ranking": ranking,
        "target": {"metric": METRIC, "value": float(np.median(known)) if known else None},
        "failures": failures,
        "reproduce": {
            "command": "thalweg compare digits-mlp " + " ".join(names) + " --seeds 10 --trials 12",
            "versions": {"thalweg": "0.1.0", "torch": "2.13.0", "numpy": "2.4.1"},
            "hardware": {
                "cpu": "a processor",
                "cores": 2,
                "memory_gb": 7.8,
                "platform": "Linux x86_64",
                "device": "cpu",
            },
            "seeds": [SEEDS_FROM + i for i in range(seeds)],
            "tuning_seeds": [0],
            "created": "2026-11-25T14:40:00+00:00",
            "problem_source": "def problem(seed):\n    return training  # <ok> & so\n",
        },
    }


def _method(
    index: int,
    name: str,
    final: float,
    common: np.ndarray,
    points: int,
    trials: int,
    diverged: bool,
    interrupted: bool,
    rate: bool,
    draw: np.random.Generator,
) -> dict[str, Any]:
    free = index == 5
    axes = [
        {"name": "lr", "kind": "log", "low": 1e-4, "high": 1.0, "values": None},
        {"name": "betas[0]", "kind": "one_minus_log", "low": 0.7, "high": 0.999, "values": None},
        {"name": "nesterov", "kind": "choice", "low": None, "high": None, "values": [True, False]},
    ][: 0 if free else 1 + index % 3]
    tried = [_trial(name, i, axes, final, index, diverged, draw) for i in range(trials)]
    tried = [] if free else tried
    if rate:
        for trial in tried:
            trial["validation"] = trial["validation"] and max(0.0, 1 - trial["validation"])
    runs = [
        _run(name, "measure", i, final * math.exp(common[i]), index, points, diverged, rate, draw)
        for i in range(len(common))
    ]
    plain = [
        _run(name, "default", i, 1.4 * final * math.exp(common[i]), 0, points, False, rate, draw)
        for i in range(len(common))
    ]
    if interrupted:
        runs = runs[: max(0, 7 - 2 * index)]
        plain = [] if index else plain
    good = [trial for trial in tried if trial["validation"] is not None]
    best = min(good, key=lambda t: (-1 if rate else 1) * t["validation"])["values"] if good else {}
    values = sorted((t["validation"] for t in good), reverse=rate)
    return {
        "name": name,
        "spec": name,
        "place": f"thalweg.optim.{name.title()}",
        "summary": "A way down, invented for a test",
        "paper": "Someone and Someone Else, On going down",
        "year": 2015 + index,
        "memory": "2 per parameter",
        "parameter_free": free,
        "axes": axes,
        "tuned": best,
        "defaults": {} if free else {"lr": 1e-3},
        "edge": [{"axis": "lr", "side": "high", "value": 0.97}] if index == 3 else [],
        "trials": tried,
        "tuning_curve": _tuning_curve(values, len(tried)),
        "runs": runs,
        "default_runs": plain,
        "cost": {
            "ms_per_step": 0.42 + 0.11 * index,
            "ratio_to_fused_adamw": None if index == 4 else 0.8 + 0.2 * index,
            "state_bytes_per_parameter": 4.0 * (index % 3),
            "compile_seconds": 1.3 * (index % 2),
            "gradient_evaluations": 420.0 * (1 + (index == 2)),
        },
        "certificate": None,
    }


def _trial(
    name: str,
    number: int,
    axes: list[dict[str, Any]],
    final: float,
    index: int,
    diverged: bool,
    draw: np.random.Generator,
) -> dict[str, Any]:
    lr = 10 ** draw.uniform(-4, 0)
    known = {"lr": lr, "betas[0]": 1 - 10 ** draw.uniform(-3, -0.5), "nesterov": number % 2 == 0}
    off = math.log10(lr) + 2 - 0.3 * index
    lost = diverged and off > 1.4
    value = final * math.exp(0.35 * off**2 + abs(draw.normal(0, 0.03)))
    return {
        "id": f"t{number}-{name[:6]}",
        "values": {axis["name"]: known[axis["name"]] for axis in axes},
        "validation": None if lost else value,
        "status": "diverged" if lost else "done",
        "reason": "the loss became infinite at step 17" if lost else None,
    }


def _run(
    name: str,
    stage: str,
    number: int,
    final: float,
    index: int,
    points: int,
    diverged: bool,
    rate: bool,
    draw: np.random.Generator,
) -> dict[str, Any]:
    status, reason, kept = "done", None, points
    if diverged and index == 2 and number in (3, 7):
        status, reason, kept = "diverged", "the loss became infinite at step 130", points // 3
    if diverged and index == 4 and number == 5:
        status, reason, kept = "failed", "RuntimeError: <b>shape</b> mismatch", 0
    final *= math.exp(draw.normal(0, 0.015))
    at = np.linspace(0, 1, points)[:kept]
    loss = final + (2.3 - final) * np.exp(-at * (4 + 5 / (1 + 0.3 * index))) * np.exp(
        draw.normal(0, 0.02, kept)
    )
    train = 0.7 * loss
    validation = np.clip(1 - loss / 2.4, 0, 1) if rate else loss
    steps = np.round(420 * at).astype(int)
    seconds = 420 * at * (0.42 + 0.11 * index) / 1000 * math.exp(draw.normal(0, 0.05))
    curve = {
        "step": steps.tolist(),
        "evaluations": (steps * (2 if index == 2 else 1)).tolist(),
        "seconds": seconds.tolist(),
        "train": train.tolist(),
        "validation": validation.tolist(),
    }
    if kept > 4 and number == 1:
        curve["validation"][2] = None  # one evaluation that was not finite
    value = float(validation[-1]) if status == "done" else None
    return {
        "id": f"{stage[0]}{number}-{name[:6]}",
        "seed": SEEDS_FROM + number,
        "status": status,
        "reason": reason,
        "final": {METRIC: value},
        "test": None if value is None or stage == "default" else {METRIC: 1.02 * value},
        "curve": curve,
    }


def _final(run: dict[str, Any], rate: bool) -> float:
    value = (run["test"] or {}).get(METRIC)
    return (-math.inf if rate else math.inf) if value is None else float(value)


def _tuning_curve(values: list[float], trials: int) -> dict[str, list[Any]]:
    median: list[float | None] = []
    for k in range(1, trials + 1):
        found = None
        for i, value in enumerate(values, start=1):
            if 1 - math.comb(trials - i, k) / math.comb(trials, k) >= 0.5:
                found = value
                break
        median.append(found)
    return {"k": list(range(1, trials + 1)), "median": median, "expected": [None] * trials}


def _verdicts(values: dict[str, list[float]], seeds: int, rate: bool) -> list[dict[str, Any]]:
    pairs = [
        pair
        for pair in itertools.combinations(values, 2)
        if len(values[pair[0]]) == len(values[pair[1]])
    ]
    return [_verdict(a, b, np.array(values[a]), np.array(values[b]), seeds, rate) for a, b in pairs]


def _verdict(
    a: str, b: str, x: np.ndarray, y: np.ndarray, seeds: int, rate: bool
) -> dict[str, Any]:
    mean = low = high = winner = None
    word, p, margin = "cannot tell", 0.3, 0.005 if rate else 0.01
    if np.isfinite(x).all() and np.isfinite(y).all() and x.size > 1:
        d = x - y if rate else np.log(x / y)
        mean = float(d.mean())
        half = float(stats.t.ppf(0.98, d.size - 1) * d.std(ddof=1) / math.sqrt(d.size))
        low, high = mean - half, mean + half
        p = max(2.0 ** (1 - d.size), float(stats.ttest_1samp(d, 0).pvalue))
        if low * high > 0 and abs(mean) > margin and seeds >= 10:
            word, winner = "better", a if (mean < 0) != rate else b
        elif max(-low, high) < margin:
            word = "same"
    told = {"better": f"{winner} is better", "same": "the same", "cannot tell": "cannot tell"}[word]
    return {
        "word": word,
        "a": a,
        "b": b,
        "winner": winner,
        "mean": mean,
        "low": low,
        "high": high,
        "p": p,
        "p_adjusted": min(1.0, 3 * p),
        "more_seeds": "more than 200" if mean is None else 15 if word == "cannot tell" else None,
        "sentence": f"{a} against {b}: {told} ({seeds} paired seeds).",
    }


def _rank(name: str, values: list[float], rate: bool) -> dict[str, Any]:
    n, k = len(values), int(np.isfinite(values).sum())
    share = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    middle = float(np.median(values))
    return {
        "name": name,
        "median_final": middle if math.isfinite(middle) else None,
        "success": k / n,
        "success_low": float(share.low),
        "success_high": float(share.high),
    }


def _failures(method: dict[str, Any]) -> list[dict[str, Any]]:
    stages = (("tune", "trials"), ("measure", "runs"), ("default", "default_runs"))
    return [
        {
            "method": method["name"],
            "stage": stage,
            "seed": job.get("seed"),
            "trial": number if stage == "tune" else None,
            "status": job["status"],
            "reason": job["reason"],
            "id": job["id"],
            "command": f"thalweg compare digits-mlp --only {job['id']!r}",
        }
        for stage, key in stages
        for number, job in enumerate(method[key])
        if job["status"] != "done"
    ]


def _fewest(pairs: int) -> int:
    return 1 + math.ceil(math.log2(pairs / 0.04))


def certified(summary: dict[str, Any]) -> dict[str, Any]:
    """The same race with its end points inspected; the last method's could not be."""
    names = [method["name"] for method in summary["methods"]]
    for method in summary["methods"]:
        told = {"seed_of_run": 1, "checkpoint": "ends/0123.safetensors", "seconds": 0.5}
        if method["name"] == names[-1]:
            method["certificate"] = {
                **told,
                "refused": "the loss must be deterministic, got noise <img src=x>",
            }
            continue
        method["certificate"] = {
            **told,
            "verdict": "STRICT_SADDLE",
            "sentence": "a strict saddle",
            "headline": "This is a strict saddle.",
            "loss": 0.1,
            "gradient_norm": 0.001,
            "lambda_min": [-0.0123, -0.01],
            "lambda_max": [3.0, 3.5],
            "trace": {"value": 12.0, "low": 10.0, "high": 14.0, "samples": 20},
            "sharpness": {"value": 0.4, "low": 0.3, "high": 0.5, "samples": 6},
            "reasons": [],
            "assumptions": ["rests on <i>nothing</i>"],
            "products": 120,
        }
    summary["ending"] = {
        "inspected": True,
        "products": 240,
        "seconds": 1.5,
        "lines": [
            {
                "a": a,
                "b": b,
                "positions": [0.0, 0.5, 1.0],
                "values": [0.1, 0.4, 0.2],
                "barrier": 0.25,
            }
            for i, a in enumerate(names)
            for b in names[i + 1 :]
        ],
    }
    return summary
