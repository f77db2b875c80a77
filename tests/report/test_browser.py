"""The page in a real browser: nothing is clipped, empty, off the screen or asked of the network."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from bonsai_core.report.page import page as page_of
from tests.report.conftest import Reported

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SIZES = {"desktop": (1280, 900), "telephone": (390, 844)}

# Pairs of texts of one figure that lie over each other; labels may stand beside their dots.
OVERLAPS = """
() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const texts = [...svg.querySelectorAll("text:not(.label)")];
  const boxes = texts.map(text => text.getBoundingClientRect());
  const found = [];
  for (let i = 0; i < boxes.length; i++)
    for (let j = i + 1; j < boxes.length; j++) {
      const [a, b] = [boxes[i], boxes[j]];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const along = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && along > 1)
        found.push([texts[i].textContent, texts[j].textContent]);
    }
  return found;
})
"""
# Whatever is drawn beyond its figure.
CLIPPED = """
() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text, circle, rect, polyline, line")].filter(part => {
    const box = part.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1
      || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map(part => part.outerHTML);
})
"""
# Heat-map labels that reach under their first cell.
COVERED = """
() => [...document.querySelectorAll("svg:has(.kept)")].flatMap(svg => {
  const left = svg.querySelector(".kept").getBoundingClientRect().left;
  return [...svg.querySelectorAll("text:not([text-anchor])")]
    .filter(text => text.getBoundingClientRect().right > left).map(text => text.textContent);
})
"""
EMPTY = """
() => [...document.querySelectorAll("section, figure, svg, table, pre, h1, h2, li, dd")]
  .filter(part => {
    const box = part.getBoundingClientRect();
    const drawn = part.querySelector("svg *, text") || part.tagName.toLowerCase() === "svg";
    const closed = part.closest("details") && !part.closest("details").open;
    return !closed && (box.width < 2 || box.height < 2 || (!drawn && !part.textContent.trim()));
  }).map(part => part.outerHTML.slice(0, 200))
"""
# What lies beyond the window and cannot be scrolled to inside something that scrolls by itself.
OFF_SCREEN = """
() => [...document.querySelectorAll("body *")].filter(part => {
  const box = part.getBoundingClientRect();
  return box.width && !part.closest(".scroll") && !part.closest("svg")
    && (box.left < -1 || box.right > window.innerWidth + 1);
}).map(part => part.outerHTML.slice(0, 200))
"""
# Ratio of the luminances of text and ground (WCAG 2.2, 1.4.3), least over all texts.
CONTRAST = """
() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = part => {
    for (; part; part = part.parentElement) {
      const colour = getComputedStyle(part).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const written = [...document.querySelectorAll("body *")].filter(part =>
    [...part.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())
    && part.tagName.toLowerCase() !== "title");
  return Math.min(...written.map(part => {
    const style = getComputedStyle(part);
    const [a, b] = [light(part.closest("svg") ? style.fill : style.color), light(ground(part))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(params=["sizes", "masks"])
def report(request: pytest.FixtureRequest) -> Reported:
    return request.getfixturevalue(request.param)


def opened(browser: Browser, path: Path, size: tuple[int, int], scheme: Any) -> Page:
    viewport: Any = {"width": size[0], "height": size[1]}
    page = browser.new_page(viewport=viewport, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: asked.append(message.text))
    page.goto(path.as_uri())
    assert asked == [path.as_uri()]
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_all_of_it_is_there_to_be_read(
    browser: Browser, report: Reported, size: str, scheme: str
) -> None:
    page = opened(browser, report.folder / "report.html", SIZES[size], scheme)
    assert page.title() == report.contents["title"]
    for fault in (CLIPPED, OVERLAPS, COVERED, EMPTY, OFF_SCREEN):
        assert page.evaluate(fault) == []
    assert page.evaluate(CONTRAST) >= 4.5
    width = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_shows_something(browser: Browser, report: Reported, scheme: str) -> None:
    page = opened(browser, report.folder / "report.html", SIZES["desktop"], scheme)
    ground = {"light": (255, 255, 255), "dark": (18, 22, 20)}[scheme]
    figures = page.query_selector_all("figure svg")
    assert len(figures) >= 3
    for figure in figures:
        image = Image.open(io.BytesIO(figure.screenshot())).convert("RGB")
        colours = image.getcolors(image.width * image.height)
        assert colours is not None
        most, usual = max(colours)
        drawn = 1 - most / (image.width * image.height)
        assert len(colours) > 10
        assert drawn > 0.01
        if not figure.query_selector(".kept"):
            assert usual == ground
    page.close()


def test_a_faulty_page_would_be_found(browser: Browser, sizes: Reported, tmp_path: Path) -> None:
    broken = sizes.page.replace("max-width: 60rem", "width: 3000px")
    broken = broken.replace('<section id="asked">', '<section id="asked"><li></li>')
    broken = broken.replace("--faint: #5c6862", "--faint: #eeeeee")
    (tmp_path / "report.html").write_text(broken)
    page = opened(browser, tmp_path / "report.html", SIZES["telephone"], "light")
    assert page.evaluate(OFF_SCREEN)
    assert page.evaluate(EMPTY)
    assert page.evaluate(CONTRAST) < 4.5
    page.close()


def test_names_and_prompts_are_shown_and_not_run(
    browser: Browser, masks: Reported, tmp_path: Path
) -> None:
    said = "<script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\">"
    report = masks.contents
    report["prompts"] = [said]
    report["request"]["model"]["source"] = f"/models/{said}"
    report["dense"]["measurement"]["completions"] = [said]
    (tmp_path / "report.html").write_text(page_of(report))
    page = opened(browser, tmp_path / "report.html", SIZES["desktop"], "light")
    assert page.title() == report["title"]
    assert said in page.inner_text("#samples")
    assert said in page.inner_text("#asked")
    page.close()
