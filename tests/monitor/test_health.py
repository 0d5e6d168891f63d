"""Each rule finds what it is for in a noisy log, and nothing in healthy ones."""

import random

import pytest

from tests.monitor.streams import healthy, spoil
from trellis.monitor.health import QUIET, Diagnoses
from trellis.monitor.health_rules import NAMES, RULES, check_names
from trellis.monitor.health_signs import Stream
from trellis.monitor.health_statistics import above, correlation, fallen, normal, partial, rising, sure

METHODS = ("sft", "reward", "dpo", "kto", "orpo", "cpo", "ppo", "grpo", "rloo")
SEEDS = 20
PAIRS = 8


def found(diagnoses, log):
    """All that begins and ends in a log: (name, event, step)."""
    return [(e.name, e.event, e.step) for point in log for e in diagnoses.hear(point)]


@pytest.mark.parametrize("method", METHODS)
def test_healthy_logs_raise_no_alarm(method):
    alarms = {seed: found(Diagnoses(method, PAIRS), healthy(method, seed)) for seed in range(SEEDS)}
    assert {seed: said for seed, said in alarms.items() if said} == {}


CASES = [(rule.name, method) for rule in RULES if rule.finds for method in rule.methods]
CASES = [c for c in CASES if c[0] != "rewards-all-equal" or c[1] == "ppo"]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_rule_finds_its_fault_once_and_is_silent_when_it_is_over(name, method):
    for seed in range(3):
        noise = random.Random(seed)
        log = list(healthy(method, seed, logs=250))
        log[60:140] = [spoil(name, point, noise, since) for since, point in enumerate(log[60:140])]
        said = [(event, step) for which, event, step in found(Diagnoses(method, PAIRS), log) if which == name]
        assert [event for event, _ in said] == ["found", "cleared"], (name, method, seed, said)
        assert 600 < said[0][1] <= 1150 < 1400 < said[1][1] <= 1900


def test_one_strange_point_is_no_fault():
    for name, method in CASES:
        noise, log = random.Random(1), list(healthy(method, 1, logs=150))
        log[100] = spoil(name, log[100], noise, 0)
        assert found(Diagnoses(method, PAIRS), log) == [], name


def test_points_of_one_rollout_count_once():
    stream = Stream("ppo")
    for step in range(6):
        stream.add({"step": step, "episode": step // 3, "objective/kl": float(step)})
    assert (stream.count, stream.lately("objective/kl", 2)) == (2, [2.0, 5.0])


def test_what_is_no_number_is_no_evidence():
    stream = Stream("sft")
    for value in (1.0, float("nan"), 2.0):
        stream.add({"step": 0, "loss": value})
    assert stream.lately("loss", 3) == []
    assert stream.lately("absent", 2) == []


def test_the_warm_up_is_not_taken_for_a_standstill():
    warming = [{"step": i, "loss": 0.6931, "learning_rate": 1e-6 * i} for i in range(12)]
    assert found(Diagnoses("dpo"), warming) == []
    still = [{"step": i, "loss": 0.6931, "learning_rate": 0.0} for i in range(8)]
    diagnoses = Diagnoses("dpo")
    assert found(diagnoses, still) == [("loss-stuck", "found", 7)]
    assert "0.6931 (ln 2)" in diagnoses.open["loss-stuck"].message
    assert "learning rate 0" in diagnoses.open["loss-stuck"].message


def test_what_the_trainer_tells_is_said_once_until_it_is_over():
    diagnoses = Diagnoses("grpo")
    said = [
        diagnoses.told("rewards-all-equal", text, i) for i, text in enumerate(["same", "same", None, "same"])
    ]
    assert [e and (e.event, e.step, e.advice) for e in said] == [
        ("found", 0, ""),
        None,
        ("cleared", 2, ""),
        ("found", 3, ""),
    ]


def test_a_finding_is_over_after_some_points_without_it():
    steps = [0.3] * 3 + [0.0] * QUIET
    log = [{"step": i, "episode": i, "ratio/off_at_start": x} for i, x in enumerate(steps)]
    assert found(Diagnoses("ppo"), log) == [("ratio-not-one", "found", 2), ("ratio-not-one", "cleared", 6)]


def test_names_are_unique_and_unknown_ones_are_refused():
    assert len(set(NAMES)) == len(NAMES)
    with pytest.raises(
        ValueError, match="stop_on_health names 'kl'; expected names of health rules: kl-blow-up"
    ):
        check_names("stop_on_health", ["kl"])


@pytest.mark.parametrize(
    ("t", "freedom", "probability", "z"),
    [
        (2.262, 9, 0.025, 1.960),
        (4.781, 9, 0.0005, 3.291),
        (3.883, 19, 0.0005, 3.291),
        (1.96, 1e6, 0.025, 1.960),
    ],
)
def test_a_t_value_is_as_unlikely_as_its_normal_deviate(t, freedom, probability, z):
    """Student's t from printed tables, at the given probability on one side."""
    assert normal(t, freedom) == pytest.approx(z, abs=0.02)
    assert normal(-t, freedom) == -normal(t, freedom)


def test_statistics_by_hand():
    assert above([1.0, 1.0, 1.0], 0.5) == float("inf")
    assert above([0.5, 0.5], 0.5) == 0
    assert above([1.0, -1.0, 1.0, -1.0], 0) == 0
    assert fallen([1.0] * 5, [0.5] * 5) == float("inf")
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [5, 5, 5]) == 0
    assert rising([0.1 * i for i in range(10)]) > 4 > 2 > rising([0.0, 1.0] * 5)
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
    assert abs(partial(x, y, x)) < 1e-9
    assert sure(0.5, 28) == pytest.approx(2.7465, abs=1e-3)  # atanh(0.5) · √25
