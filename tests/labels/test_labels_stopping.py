"""How many errors are left: exact facts, and a small version of the simulation."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from workbench.labels.audit import Audit, Stratum, expected_yield
from workbench.labels.session import make_queue

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import label_stopping


def ratios(size, errors, guess=(0.5, 50.0)):
    """The martingale for the true number of errors, written out draw by draw."""
    part = Stratum(size, guess)
    left, unseen, hits, value = sum(errors), size, 0, 1.0
    for draws, error in enumerate(errors):
        part.draw(bool(error))
        bet = (hits + guess[0]) / (draws + sum(guess))
        rate = left / unseen
        value *= (bet / rate) if error else (1 - bet) / (1 - rate)
        hits, left, unseen = hits + error, left - error, unseen - 1
    at = int(np.flatnonzero(part.total == sum(errors))[0])
    return part, value, np.exp(part._log_bet - part._log_likelihood[at])


@pytest.mark.parametrize("errors", [[0, 0, 1, 0], [1, 1, 0, 0, 1], [0] * 6 + [1]])
def test_the_ratio_is_the_bet_over_the_likelihood(errors):
    _, by_hand, by_the_class = ratios(40, errors)
    assert by_the_class == pytest.approx(by_hand)


def test_the_bet_is_fair_for_every_number_of_errors():
    """Over all ways that three draws from ten with three errors can go the ratio's mean is 1."""
    total = 0.0
    for code in range(2**3):
        draws = [code >> i & 1 for i in range(3)]
        probability, left, unseen = 1.0, 3, 10
        part = Stratum(10)
        for error in draws:
            probability *= (left if error else unseen - left) / unseen
            left, unseen = left - error, unseen - 1
            if probability:
                part.draw(bool(error))
        if probability:
            at = int(np.flatnonzero(part.total == 3)[0])
            total += probability * np.exp(part._log_bet - part._log_likelihood[at])
    assert total == pytest.approx(1.0)


def test_limits_close_in_and_hold_what_is_possible():
    part = Stratum(500)
    assert part.limits(0.1) == (0, 500)
    last = 500
    for i in range(500):
        part.draw(i % 50 == 0)
        low, high = part.limits(0.1)
        assert 0 <= low <= high <= part.unseen
        last = high
    assert last == 0
    assert part.found == 10


def test_without_an_error_found_the_limit_is_near_the_rule_of_three():
    """An interval that holds at every look at once costs more than one for a single look."""
    part = Stratum(100_000, (0.5, 50.0))
    for _ in range(400):
        part.draw(False)
    _, high = part.limits(0.1)
    single = next(p for p in np.arange(0.001, 0.05, 1e-4) if binom.cdf(0, 400, p) <= 0.1)
    assert single * 100_000 < high < 2 * single * 100_000


def test_a_coarse_grid_only_widens_the_interval():
    fine, coarse = Stratum(1900), Stratum(1900)
    coarse.total = coarse.total[::25]
    coarse._log_likelihood = np.zeros(len(coarse.total))
    for i in range(300):
        for part in (fine, coarse):
            part.draw(i % 40 == 7)
    (low, high), (low_coarse, high_coarse) = fine.limits(0.1), coarse.limits(0.1)
    assert low_coarse <= low
    assert high <= high_coarse <= high + 2 * 25


def test_the_estimate_is_unbiased_at_a_fixed_place_of_the_queue():
    errors = np.zeros(300, dtype=bool)
    errors[np.r_[0:30, 100:140:4]] = True  # 30 that the ranking knows of, 10 that it does not
    score, flagged = np.linspace(1, 0, 300), np.arange(300) < 40
    found = []
    for seed in range(300):
        queue = make_queue(score, flagged, 0.2, seed)
        audit = Audit(queue.flagged, queue.rank)
        for position in queue.order[:90]:
            audit.review(position, errors[position], queue.audit[position])
        left = audit.left()
        found.append(audit._estimate(left.unreviewed)[0] - (errors.sum() - left.found))
    standard_error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * standard_error
    assert standard_error < 1


def test_no_number_is_said_before_the_draws_carry_one():
    """Twelve decisions, none of the draws an error, 15 errors in 300: it is too early to say."""
    errors = np.zeros(300, dtype=bool)
    errors[np.r_[0:9, 100:280:30]] = True
    for seed in range(10):
        queue = make_queue(np.linspace(1, 0, 300), np.arange(300) < 12, 0.2, seed)
        audit = Audit(queue.flagged, queue.rank)
        for position in queue.order[:12]:
            audit.review(position, errors[position], queue.audit[position])
        left = audit.left()
        assert np.isnan(left.estimate)
        assert left.low <= 6 <= left.high


def test_draws_of_single_strata_count_as_those_of_all():
    """The pilot's draws, ten a stratum: the interval closes in and holds the truth."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(60):
        errors = rng.random(600) < np.linspace(0.6, 0, 600)
        flagged = np.arange(600) < 150
        queue = make_queue(np.linspace(1, 0, 600), flagged, 60, seed)
        assert queue.audit[queue.order[:60]].all()
        assert np.bincount(queue.stratum[queue.order[:60]]).tolist() == [12] * 5
        audit = Audit(flagged, queue.rank)
        for position in queue.order[:60]:
            audit.review(position, errors[position], True)
        left = audit.left()
        held += left.low <= errors.sum() - left.found <= left.high
    assert held >= 54


def test_answers_given_twice_bound_how_often_they_are_wrong():
    audit = Audit(np.zeros(50, dtype=bool), np.arange(50))
    assert audit.mistakes() == 0.1
    for _ in range(60):
        audit.repeat(False)
    assert 0 < audit.mistakes() < 0.03
    for _ in range(60):
        audit.repeat(True)
    assert audit.mistakes() > 0.3


def test_a_whole_review_leaves_nothing():
    queue = make_queue(np.arange(50.0), np.arange(50) > 40)
    audit = Audit(queue.flagged, queue.rank)
    for position in queue.order:
        audit.review(position, position > 45, queue.audit[position])
    left = audit.left()
    assert (left.reviewed, left.unreviewed, left.found) == (50, 0, 4)
    assert (left.estimate, left.low, left.high) == (0.0, 0, 0)
    assert left.share == (0.0, 0.0, 0.0)


def test_before_the_first_draw_nothing_is_claimed():
    audit = Audit(np.zeros(20, dtype=bool), np.arange(20))
    audit.review(0, True, False)
    left = audit.left()
    assert np.isnan(left.estimate)
    assert (left.low, left.high) == (0, 19)


class TestQueue:
    def test_every_sample_comes_once_and_ranked_ones_in_their_order(self):
        rng = np.random.default_rng(3)
        score = rng.random(500)
        queue = make_queue(score, score > 0.9, 0.2, seed=1)
        assert np.sort(queue.order).tolist() == list(range(500))
        ranked = queue.order[~queue.audit[queue.order]]
        assert (np.diff(score[ranked]) <= 0).all()
        drawn = queue.order[queue.audit[queue.order]]
        turn = np.empty(500, dtype=int)
        turn[queue.draws] = np.arange(500)
        assert (np.diff(turn[drawn]) > 0).all()

    def test_one_in_five_is_drawn_then_every_second(self):
        flagged = np.arange(1000) < 80
        queue = make_queue(np.linspace(1, 0, 1000), flagged, 0.2, seed=0)
        by_lot = queue.audit[queue.order]
        assert by_lot[:100].reshape(-1, 5).sum(axis=1).tolist() == [1] * 20
        assert by_lot[100:].reshape(-1, 2).sum(axis=1).tolist() == [1] * 450
        assert not make_queue(np.ones(9), np.ones(9, dtype=bool), audit=0).audit.any()

    def test_the_lots_know_nothing_of_noise_injected_with_the_same_seed(self):
        from workbench.labels import inject_noise

        for seed in range(5):
            noisy = inject_noise(np.arange(4000) % 10, "uniform", 0.1, seed)
            queue = make_queue(np.zeros(4000), np.zeros(4000, dtype=bool), 0.5, seed)
            drawn = noisy.is_wrong.values[queue.draws[:1000]]
            assert 60 < drawn.sum() < 140  # 100 expected, 4 standard deviations either way

    def test_an_audit_that_cannot_be_is_refused(self):
        with pytest.raises(ValueError, match=r"audit=0\.7 .* from 0 to 0\.5"):
            make_queue(np.ones(3), np.ones(3, dtype=bool), audit=0.7)


class TestExpectedYield:
    def test_it_learns_what_scores_are_worth(self):
        score = np.repeat([0.9, 0.5], 100)
        wrong = np.r_[np.arange(100) < 30, np.zeros(100)].astype(bool)
        page = np.array([0.9, 0.9, 0.5, 0.5])
        assert expected_yield(score, wrong, page) == pytest.approx(0.6, abs=0.05)
        assert expected_yield(score[:0], wrong[:0], page) == pytest.approx(page.sum())
        assert expected_yield(score, wrong, page[:0]) == 0.0

    def test_behind_the_last_score_it_promises_no_more_than_there(self):
        score = np.linspace(1, 0.5, 60)
        wrong = score > 0.8
        assert expected_yield(score, wrong, np.full(6, 0.3)) <= 6 * 0.3


@pytest.mark.long
@pytest.mark.parametrize(
    ("rate", "skill", "mistakes"), [(0.05, 4.0, 0.0), (0.01, 1.5, 0.0), (0.05, 4.0, 0.05)]
)
def test_coverage_and_stopping_with_a_scripted_reviewer(rate, skill, mistakes):
    """The benchmark with 12 seeds and 1,000 samples; it runs 200 seeds and more cases."""
    found = [label_stopping.simulate(1000, rate, skill, seed, mistakes) for seed in range(12)]
    table = label_stopping.summary(found)
    assert table["covers at the stop"] >= 0.85
    assert table["covers on every page"] >= 0.85
    assert table["right to stop"] >= 0.85
    assert table["stopped"] == 1.0
    if skill == 4.0:
        assert table["answers"] < table["uniform"]
