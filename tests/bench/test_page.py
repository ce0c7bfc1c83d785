"""The page of a result: its numbers, what hostile answers can do, and how a real browser shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import testbed

from ggufkit.bench.page import page, roofline_tokens_per_s
from ggufkit.bench.result import BenchResult
from tests.bench.made import made
from tests.support.chromium import DESK, PHONE, Browser, run_chromium

HOSTILE = '</pre><script>document.title="pwned"</script><img src=http://example.com/x.png>\x1b[31m'


def two_models(answer: str = "落叶归根，" * 60) -> BenchResult:
    """Return a result of two models on a machine whose bandwidth is known."""
    one = made((10.0, 10.5, 9.5), name="DeepSeek-R1-Distill-Qwen-1.5B-Q4_K_M-with-a-rather-long-name")
    two = made((5.0, 5.25, 4.75), name="gemma", answer=answer)
    models = [
        replace(m, facts=replace(m.facts, active_bytes_per_token=n))
        for m, n in ((one.models[0], 1_000_000_000), (two.models[0], 2_000_000_000))
    ]
    host = replace(one.host, bandwidth_bytes_per_s=20e9, bandwidth_source="channels")
    return replace(one, host=host, models=tuple(models))


def bare(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", html.partition("<body>")[2])


def test_the_numbers_are_there() -> None:
    text = bare(page(two_models()))
    for number in ("10.00 tokens/s", "5.00 tokens/s", "50% of 20.00 tokens/s", "6 of 6", "2.5 s"):
        assert number in text, number
    assert "20.0 GB/s, channels" in text


def test_the_limit_is_only_told_where_it_holds() -> None:
    result = two_models()
    model = result.models[0]
    assert roofline_tokens_per_s(result, model) == 20
    on_gpu = replace(model, facts=replace(model.facts, vram_bytes=1 << 30))
    assert roofline_tokens_per_s(result, on_gpu) is None
    elsewhere = replace(result, server=replace(result.server, same_machine=False))
    assert roofline_tokens_per_s(elsewhere, model) is None
    assert "memory's bandwidth" not in page(elsewhere)


def test_text_of_models_stays_text() -> None:
    html = page(two_models(HOSTILE))
    assert "<script" not in html and "<img" not in html and "\x1b" not in html
    assert "&lt;script&gt;" in html


def test_nothing_is_loaded_from_anywhere() -> None:
    html = page(two_models())
    assert not re.search(r"<(?:script|link|img|iframe|object|embed)\b|url\(|@import|srcset|https?://", html)


def test_a_result_without_answers_is_a_page_too() -> None:
    result = made()
    html = page(replace(result, models=()))
    assert "no model" in html and "Generation" not in html


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if testbed.chromium_is_a_snap():
        pytest.skip("Ubuntu has Chromium only as a snap: install Chrome")
    with run_chromium() as running:
        yield running


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_a_browser_shows_all_of_it(
    browser: Browser, tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    """Look at the page: nothing fetched but itself, nothing too wide, bars as long as their numbers say."""
    path = tmp_path / "result.html"
    path.write_text(page(two_models(HOSTILE)))
    browser.open(path.as_uri(), size, dark=dark)
    assert browser.requests == [path.as_uri()]
    assert browser.value("document.title").startswith("DeepSeek")
    assert browser.value("document.documentElement.scrollWidth") <= size[0]
    bars = "[...document.querySelectorAll('.bar')]"
    assert browser.value(f"{bars}.map(b => b.querySelector('b').innerText)") == ["10.00", "5.00"] * 2
    widths = browser.value(f"{bars}.map(b => b.querySelector('i').getBoundingClientRect().width)")
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.02) and widths[1] > 20
    limits = browser.value("[...document.querySelectorAll('.track s')].map(s => parseFloat(s.style.left))")
    assert limits == [100.0, 50.0] * 2
    columns = browser.value("[...document.querySelectorAll('.course i')].map(i => i.offsetHeight)")
    assert len(columns) == 12 and min(columns) > 50
    side_by_side = browser.value(
        "[...document.querySelector('.answers').children].map(c => c.getBoundingClientRect().top)"
    )
    assert (side_by_side[0] == side_by_side[1]) == (size == DESK)
    assert contrast(browser) > 7
    browser.photograph(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def contrast(browser: Browser) -> float:
    """Return how far text and page lie apart (WCAG 2.2, "contrast ratio")."""
    style = "getComputedStyle(document.body)"
    colors = [browser.value(f"{style}.{name}") for name in ("color", "backgroundColor")]
    light, dark = sorted((luminance(color) for color in colors), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
