"""When to stop a label review: does the interval hold, and is stopping right?

    python tests/benchmarks/label_stopping.py --seeds 200
    ... --data digits --rates 0.05 --mistakes 0 0.02 0.05 0.1 --by-class --page 60 --trained 20

A scripted reviewer who knows the true labels goes through the queue page by page and looks at the
interval after every page, which is what makes ordinary intervals fail. It stops when at most 1 %
of the dataset is still wrong by the interval's upper end. Cases: the share of wrong labels, and
the skill of the ranking, from blind (0) to one that misses little (4), the distance in standard
deviations between the scores' logits of right and wrong labels. With `--data digits` the labels,
noise and scores are real: injected noise, out-of-fold probabilities, find_issues. With
`--mistakes 0.05` the reviewer finds a right label wrong, or a wrong one right, in 5 % of the
answers; he is asked again as `labels.review` asks. With `--by-class` all of that is also run with
the mistakes on every second class alone, twice as often there. `uniform` are the decisions of a
random audit of all samples that stops by the same interval.

Columns: `fixed` is the coverage after 5, 10, 20 and 30 % of the samples, `every page` the share of
runs whose interval held at every look until the stop, `right` the share of stops at which at most
1 % of the dataset (in brackets: of the unreviewed part) was wrong, `bias` the mean of estimate
less truth over all fixed looks in percent of the dataset, with its standard error, `yield` the
errors expected on all pages over those found, `single look` the coverage and the share of right
stops of the hypergeometric (Clopper-Pearson) interval for one look, for comparison.
"""

import argparse
import time
from functools import lru_cache
from itertools import product

import numpy as np
from scipy.stats import hypergeom

from workbench.labels.audit import Audit, expected_yield
from workbench.labels.session import make_queue

LOOKS = (0.05, 0.1, 0.2, 0.3)
PAGE = 6
TARGET = 0.01


def population(n, rate, skill, rng):
    """Which labels are wrong, and scores that are their posterior probability."""
    wrong = np.zeros(n, dtype=bool)
    wrong[rng.choice(n, round(rate * n), replace=False)] = True
    seen = rng.normal(size=n) + skill * wrong
    logit = np.log(rate / (1 - rate)) + skill * seen - skill**2 / 2
    return wrong, 1 / (1 + np.exp(-logit))


def simulate(n, rate, skill, seed, mistakes=0.0, by_class=False, page=PAGE):
    """One run with made scores."""
    wrong, score = population(n, rate, skill, np.random.default_rng([1, seed]))
    erring = chances(mistakes, np.arange(n) if by_class else None, n)
    return both(wrong, score, score > 0.5, seed, erring, page)


def chances(mistakes, given, n):
    """How often the answer on each sample is wrong: the same, or for every second class alone."""
    return np.full(n, mistakes) if given is None else 2 * mistakes * (given % 2)


def both(wrong, score, flagged, seed, mistakes, page):
    """The review along the queue, and a random audit of all samples beside it."""
    run = review(wrong, score, flagged, seed, mistakes, page)
    n = len(wrong)
    rng = np.random.default_rng([2, seed])
    order = rng.permutation(n)
    audit = Audit(np.zeros(n, dtype=bool), np.arange(n), np.zeros(n, dtype=np.int64))
    reviewer = Reviewer(audit, wrong, mistakes, rng)
    run["uniform"] = None
    for seen in range(0, n, page):
        for position in order[seen : seen + page].tolist():
            reviewer.look(position, True, True)
        if audit.left().share[2] <= TARGET:
            run["uniform"] = reviewer.answers / n
            break
    return run


class Reviewer:
    """Answers wrongly now and then, and is asked again as a session asks."""

    def __init__(self, audit, wrong, mistakes, rng):
        self.audit, self.wrong, self.mistakes, self.rng = audit, wrong, mistakes, rng
        self.answers, self.plain, self.first, self.left_wrong = 0, 0, {}, int(wrong.sum())

    def answer(self, position):
        self.answers += 1
        return bool(self.wrong[position]) ^ (self.rng.random() < self.mistakes[position])

    def look(self, position, drawn, rare):
        """Decide on a sample; `rare` where an error among the draws is a surprise."""
        verdict = self.answer(position)
        if drawn and rare and verdict and not self.answer(position):
            verdict = self.answer(position)
        elif not (drawn and rare and verdict):
            self.first[position] = verdict
        self.audit.review(position, verdict, drawn)
        self.left_wrong -= int(self.wrong[position])
        self.plain += 1
        if self.plain % 12 == 0 and self.first:
            again = int(self.rng.choice(list(self.first)))
            self.audit.repeat(self.answer(again) != self.first.pop(again))


def review(wrong, score, flagged, seed, mistakes, size):
    """Go through the queue until 30 % are seen and the review may stop."""
    n = len(wrong)
    queue = make_queue(score, flagged, seed=seed)
    audit = Audit(queue.flagged, queue.rank)
    reviewer = Reviewer(audit, wrong, mistakes, np.random.default_rng([3, seed]))
    marks = [max(int(share * n) // size, 1) * size for share in LOOKS]
    run = {"fixed": [], "error": [], "every": True, "stop": None, "single": None, "n": n}
    run |= {"expected": 0.0, "found": 0}
    for seen in range(0, n, size):
        page = queue.order[seen : seen + size]
        if seen < marks[0]:
            before = queue.order[:seen]
            run["expected"] += expected_yield(score[before], wrong[before], score[page])
            run["found"] += int(wrong[page].sum())
        for position in page.tolist():
            reviewer.look(position, bool(queue.audit[position]), not flagged[position])
        if run["stop"] is None or seen + len(page) in marks:
            look(run, reviewer, seen + len(page) in marks)
        if run["stop"] and run["single"] and seen + len(page) >= marks[-1]:
            break
    return run


def look(run, reviewer, marked):
    """Compare the interval with the truth."""
    audit = reviewer.audit
    left, n = audit.left(), run["n"]
    truth = reviewer.left_wrong
    covers = left.low <= truth <= left.high
    if marked:
        run["fixed"].append(covers)
        run["error"].append((left.estimate - truth) / n)
    if run["stop"] is None:
        run["every"] &= covers
        if left.share[2] <= TARGET:
            run["stop"] = stop(left, truth, n, covers) | {"answers": reviewer.answers / n}
    if run["single"] is None and (high := single_look(audit, left)) <= TARGET * n:
        run["single"] = stop(left, truth, n, truth <= high)


def stop(left, truth, n, covers):
    return {
        "covers": covers,
        "right": truth <= TARGET * n,
        "right of rest": truth <= TARGET * max(left.unreviewed, 1),
        "reviewed": left.reviewed / n,
        "audited": left.audited,
    }


def single_look(audit, left):
    """The upper end of the two-sided 90 % interval that would do for one look."""
    behind = [error for rank, *_, error in audit._drawn if rank >= audit._depth]
    if not behind:
        return left.unreviewed
    size, hits = left.unreviewed + len(behind), sum(behind)
    low, high = hits, left.unreviewed + hits
    while low < high:  # the largest number of errors under which so few would not surprise
        middle = (low + high + 1) // 2
        if hypergeom.cdf(hits, size, middle, len(behind)) > 0.05:
            low = middle
        else:
            high = middle - 1
    return low - hits


def summary(runs):
    """What the runs of one case come to."""
    stops = [run["stop"] for run in runs if run["stop"]]
    singles = [run["single"] for run in runs if run["single"]]
    error = np.array([run["error"] for run in runs])
    # The looks of one run share its draws: the runs are what is independent.
    by_run = np.nanmean(error, axis=1)
    return {
        "stopped": len(stops) / len(runs),
        "covers at fixed looks": np.mean([run["fixed"] for run in runs], axis=0),
        "covers on every page": np.mean([run["every"] for run in runs]),
        "covers at the stop": np.mean([stop["covers"] for stop in stops]),
        "right to stop": np.mean([stop["right"] for stop in stops]),
        "right of the rest": np.mean([stop["right of rest"] for stop in stops]),
        "reviewed": np.median([stop["reviewed"] for stop in stops]) if stops else np.nan,
        "answers": np.median([stop["answers"] for stop in stops]) if stops else np.nan,
        "uniform": np.median([run["uniform"] or np.inf for run in runs]),
        "audited": np.median([stop["audited"] for stop in stops]),
        "bias": (by_run.mean(), by_run.std() / np.sqrt(len(runs))),
        "yield": sum(run["expected"] for run in runs) / max(sum(run["found"] for run in runs), 1),
        "single right": np.mean([stop["right"] for stop in singles]) if singles else np.nan,
        "single reviewed": np.median([s["reviewed"] for s in singles]) if singles else np.nan,
    }


@lru_cache(maxsize=1)
def digits_and_probabilities():
    from workbench import datasets, labels

    ds = datasets.load("digits")
    return ds, labels.out_of_fold(ds, ds.label, progress=False)


def digits(kind, rate, trained, seed, mistakes=0.0, by_class=False, page=PAGE):
    """One run on scikit-learn's digits with noise of one of `trained` seeds, and our own queue."""
    given, wrong, score, flagged = noisy_digits(kind, rate, seed % trained)
    erring = chances(mistakes, given if by_class else None, len(given))
    return both(wrong, score, flagged, seed, erring, page)


@lru_cache(maxsize=1000)
def noisy_digits(kind, rate, seed):
    """Given labels, which of them are wrong, their scores and flags."""
    from workbench import labels

    ds, clean = digits_and_probabilities()
    noisy = labels.inject_noise(ds.label, kind, rate, seed, probabilities=clean)
    probabilities = labels.out_of_fold(ds, noisy.label, seed=seed, progress=False)
    issues = labels.find_issues(noisy.label, probabilities).sort_index()
    score, flagged = issues["score"].to_numpy(), issues["is_issue"].to_numpy()
    return noisy.label.values, noisy.is_wrong.values, score, flagged


def report(name, runs, seconds):
    table = summary(runs)
    fixed = " ".join(f"{share:.2f}" for share in table["covers at fixed looks"])
    print(
        f"{name:<34} fixed {fixed}  every page {table['covers on every page']:.3f}  "
        f"at stop {table['covers at the stop']:.3f}  right {table['right to stop']:.3f} "
        f"({table['right of the rest']:.2f})  reviewed {table['reviewed']:.0%}  "
        f"audited {table['audited']:.0f}  answers {table['answers']:.2f}, uniform "
        f"{table['uniform']:.2f}  bias {table['bias'][0]:+.3%} ± {table['bias'][1]:.3%}  "
        f"yield {table['yield']:.2f}  single look: right {table['single right']:.3f}, "
        f"reviewed {table['single reviewed']:.0%}  [{seconds:.0f} s]",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 10_000])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.005, 0.05, 0.2])
    parser.add_argument("--skills", type=float, nargs="+", default=[4.0, 2.5, 0.0])
    kinds = ["uniform", "pair", "confusion", "annotator"]
    parser.add_argument("--kinds", nargs="+", default=kinds)
    parser.add_argument("--mistakes", type=float, nargs="+", default=[0.0])
    parser.add_argument("--by-class", action="store_true")
    parser.add_argument("--page", type=int, default=PAGE, help="samples from one look to the next")
    parser.add_argument("--trained", type=int, default=200, help="seeds of the noise on digits")
    parser.add_argument("--data", choices=["made", "digits"], default="made")
    options = parser.parse_args()
    if options.data == "digits":
        cases = {
            f"digits, {kind}, {rate:.0%}": (digits, (kind, rate, options.trained))
            for kind in options.kinds
            for rate in options.rates
        }
    else:
        cases = {
            f"{n} samples, {rate:.1%}, skill {skill:g}": (simulate, (n, rate, skill))
            for n in options.sizes
            for rate in options.rates
            for skill in options.skills
        }
    reviewers = [(mistakes, False) for mistakes in options.mistakes]
    reviewers += [(m, True) for m in options.mistakes if m and options.by_class]
    for (name, (make, arguments)), (mistakes, by_class) in product(cases.items(), reviewers):
        started = time.perf_counter()
        runs = [
            make(*arguments, seed, mistakes, by_class, options.page)
            for seed in range(options.seeds)
        ]
        title = f"{name}, {mistakes:.0%} mistaken{' by class' * by_class}"
        report(title, runs, time.perf_counter() - started)


if __name__ == "__main__":
    main()
