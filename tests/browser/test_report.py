"""The report in a real browser: it draws, quickly, on any screen, without a word on the console. `make browser` runs this."""

import pytest

from scripts.chromium import opened
from tests.report.runs import EVIL, write_health, write_run, write_samples
from trellis.report import read_runs, write_page

NAMES = ("loss", "entropy", "grad_norm", *(f"metric/{i}" for i in range(27)))
PHONE, DESK = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def page():
    with opened() as page:
        yield page


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """{name: file}: a run of 10,000 steps; three seeds with everything that a page can hold, and texts that would do harm."""
    folder = tmp_path_factory.mktemp("runs")
    long = write_run(folder / "long", steps=10_000, names=NAMES, learning_rate=1e-4)
    runs = [
        write_run(folder / f"run{seed}", seed=seed, names=NAMES[:4], run_name=EVIL + "x" * 300)
        for seed in range(3)
    ]
    texts = {"completion": "word " * 400, "prompt": EVIL, "number": 0.25}
    write_samples(runs[0], [{"step": step, **texts} for step in range(1, 9)])
    write_health(runs[0], {"step": 5, "name": "a-rule", "message": EVIL, "advice": "mend it"})
    found = {"long": folder / "long.html", "several": folder / "several.html"}
    write_page(read_runs([long]), "long", found["long"])
    write_page(read_runs([*runs, long]), "several", found["several"])
    return found


def count(page, selector):
    return page.ask(f"document.querySelectorAll({selector!r}).length")


def test_ten_thousand_steps_are_there_in_two_seconds(page, reports):
    page.look(*DESK)
    page.open(reports["long"])
    assert page.ask("performance.getEntriesByType('navigation')[0].loadEventEnd") < 2000
    assert 0 < int(page.ask("document.documentElement.dataset.drawn")) < 2000
    assert count(page, "#more path.mean") == 0
    assert count(page, "path.mean") == count(page, "path.band") == 12
    assert page.ask("document.querySelector('path.mean').getTotalLength()") > 300
    page.ask("document.getElementById('more').open = true; new Promise(requestAnimationFrame)")
    page.ask("new Promise(requestAnimationFrame)")
    assert count(page, "path.mean") == len(NAMES)
    assert page.problems == []


def test_seeds_are_one_curve_and_nothing_is_obeyed(page, reports):
    page.look(*DESK)
    page.open(reports["several"])
    assert count(page, "[data-panel='0'] path.mean") == 2
    assert count(page, "[data-panel='0'] path.band") == 2
    assert count(page, "[data-panel='0'] line.mark") == 1
    assert page.ask("document.title") == "several"
    assert page.ask("performance.getEntriesByType('resource').length") == 0
    assert page.problems == []


def test_a_value_is_read_where_one_points(page, reports):
    page.look(*DESK)
    page.open(reports["long"])
    x, y = page.ask(
        "(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('svg').getBoundingClientRect())"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    step, _, value = page.ask("document.querySelector('.chart output').textContent").partition(": ")
    assert 3000 < float(step) < 6000
    assert 0.5 < float(value) < 0.8


@pytest.mark.parametrize("name", ["long", "several"])
def test_a_phone_shows_all_of_it(page, reports, name):
    page.look(*PHONE)
    page.open(reports[name])
    assert page.ask("[innerWidth, document.documentElement.scrollWidth]") == [PHONE[0], PHONE[0]]
    boxes = "[...document.querySelectorAll('.chart, .card')]"
    assert page.ask(f"Math.max(...{boxes}.map((box) => box.getBoundingClientRect().right))") <= PHONE[0]


def test_light_and_dark(page, reports):
    brightness = "(c => c.match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3)(getComputedStyle(document.body)[{!r}])"
    for dark in (False, True):
        page.look(*DESK, dark=dark)
        page.open(reports["several"])
        back, ink = (page.ask(brightness.format(name)) for name in ("backgroundColor", "color"))
        assert (back < 60 and ink > 200) if dark else (back > 200 and ink < 60)


def test_the_console_is_heard(page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text("<script>console.error('so'); nothing.there()</script>")
    page.open(broken)
    heard = page.problems.copy()
    page.problems.clear()
    assert len(heard) == 2
