"""The page as a browser shows it: every width, both schemes, keys alone, no scripts, on paper."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_fixture import write_results, write_status, write_sweep

from dstrun.report import load, page
from dstrun.report.page.drawing import contrast

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
AXE = Path(os.environ.get("DSTRUN_BROWSER", ROOT / ".browser")) / "node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
ROWS = "#table-of-runs tbody tr"
A4 = {"portrait": 680, "landscape": 1032}
"""CSS pixels across a sheet within its margins."""

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = driver.chromium.launch(executable_path=chromium, args=sandbox)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Write pages of a sweep of which a run failed with a long line, one was lost and one waits, by the rows shown."""
    folder = tmp_path_factory.mktemp("pages")
    results = write_results(folder / "results")
    failed = results / "default" / "resnet56-cifar10-gse-s0.98-seed2-77aa01"
    (failed / "error.txt").write_text("Traceback\n" + "torch.OutOfMemoryError: tried to allocate 2.00 GiB " * 10)
    write_status(results, "default/resnet56-cifar10-set-s0.9-seed7-77aa02", "running", heartbeat=1.0)
    write_sweep(results / "default", {failed.name: None, "resnet56-cifar10-set-s0.9-seed8-77aa03": "1_2"})
    written = {shown: folder / f"{shown}.html" for shown in (page.SHOWN, 10)}
    for shown, out in written.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(page, "SHOWN", shown)
            page.write(load.runs(results), [results], out, 2000.0)
    return written


@pytest.fixture
def show(browser: Any, pages: dict[int, Path]) -> Iterator[Open]:
    """Open a page in a window of its own; what the browser complains of fails the test, as does a request."""
    contexts, complaints = [], []

    def show(width: int = 1280, scheme: str = "light", rows: int = page.SHOWN, **more: Any) -> Any:
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True, **more)
        )
        opened = contexts[-1].new_page()
        opened.set_default_timeout(10_000)
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", lambda request: complaints.append(request.url))
        opened.goto(pages[rows].as_uri())
        return opened

    yield show
    for context in contexts:
        context.close()
    assert set(complaints) <= {*(written.as_uri() for written in pages.values()), "data:,"}


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_sticks_out(show: Open, width: int, scheme: str) -> None:
    opened = show(width, scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    # What is wider scrolls by itself, and keys reach it.
    wide = "[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth"
    wide += " && getComputedStyle(e).overflowX == 'auto').map(e => e.tabIndex)"
    assert set(opened.evaluate(wide)) == {0}


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
@pytest.mark.skipif(not AXE.exists(), reason="no axe-core: make browser fetches it")
def test_axe_finds_no_fault(show: Open, width: int, scheme: str) -> None:
    opened = show(width, scheme)
    opened.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    opened.evaluate(AXE.read_text())
    for part, least in (("html", 30), (":popover-open", 5)):  # the page, then the details of a run that lie over it
        if part != "html":
            opened.locator("[popovertarget]").first.click()
        found = opened.evaluate("([part, rules]) => axe.run(part, {runOnly: rules})", [part, RULES])
        assert [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]] == []
        assert len(found["passes"]) > least


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_read_in_both_schemes(show: Open, scheme: str) -> None:
    opened = show(scheme=scheme)
    paper = color(opened, "body", "backgroundColor")
    assert (contrast(paper, "#000000") > 10) == (scheme == "light")
    for selector in ("body", ".made", "main a", ".state.failed", ".state.done", ".notes", "thead th", "figcaption"):
        assert contrast(color(opened, selector, "color"), paper) >= 4.5, selector
    assert color(opened, "figure svg", "fill") == color(opened, "body", "color")
    # What figures leave white is the page's own color.
    assert color(opened, 'figure svg [style*="fill: var(--paper)"]', "fill") == paper


def color(opened: Any, selector: str, what: str) -> str:
    text = opened.locator(selector).first.evaluate("(one, what) => getComputedStyle(one)[what]", what)
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", text)[:3])


def column(opened: Any, number: int) -> list[str]:
    return opened.locator(f"{ROWS} > :nth-child({number})").all_inner_texts()


def test_keys_sort_the_table(show: Open) -> None:
    opened = show()
    head = opened.get_by_role("columnheader", name="top-1 (%)")
    head.get_by_role("button").focus()
    for direction, order in (("ascending", 1), ("descending", -1)):
        opened.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == direction
        values = column(opened, 2)
        known = [float(value) for value in values if value != "-"]
        assert known == sorted(known)[::order]
        assert len(set(known)) > 20
        assert values[len(known) :] == ["-"] * 3  # what is not known comes last
    memory = opened.get_by_role("columnheader", name="peak memory")
    memory.get_by_role("button").press("Space")
    assert opened.locator("[aria-sort]").count() == 1
    first, *_, last = (text for text in column(opened, 9) if text != "-")
    assert (first, last) == ("60.1 MB", "65.4 MB")


def test_keys_filter_the_table(show: Open) -> None:
    opened = show()
    opened.get_by_role("searchbox").focus()
    opened.keyboard.type("GSE 98%")
    assert len(column(opened, 1)) == 3
    assert opened.get_by_role("status").inner_text() == "3 of 32 runs"
    opened.keyboard.press("Tab")
    opened.keyboard.type("failed")
    assert column(opened, 4) == ["failed"]
    opened.keyboard.press("Shift+Tab")
    opened.keyboard.press("Control+a")
    opened.keyboard.type("nothing of the kind")
    assert opened.get_by_role("status").inner_text() == "0 of 32 runs"


def test_keys_open_and_close_the_details_of_a_run(show: Open) -> None:
    opened = show()
    button, details = opened.locator(f"{ROWS} [popovertarget]").first, opened.locator("[popover]").first
    assert not details.is_visible()
    button.press("Enter")
    assert details.is_visible()
    assert details.get_by_role("heading").inner_text() == "resnet56-cifar10-dense-s0-seed0-3f9c2a"
    opened.keyboard.press("Tab")
    assert details.locator(":focus").inner_text() == "close"
    opened.keyboard.press("Escape")
    assert not details.is_visible()


def test_tables_and_figures_are_saved(show: Open) -> None:
    opened = show(scheme="dark")

    def saved(button: str) -> tuple[str, str]:
        with opened.expect_download() as arriving:
            opened.get_by_role("button", name=button, exact=True).click()
        return arriving.value.suggested_filename, arriving.value.path().read_text()

    name, text = saved("CSV: Accuracy: ResNet-56 on CIFAR-10 (test)")
    head, methods, *rows = [line.split(",") for line in text.splitlines()]
    assert name == "accuracy-resnet-56-on-cifar-10-test.csv"
    assert head == ["", "", "90%", "", "95%", "", "98%", ""]
    assert methods == ["Method", "Dense", *["Ours", "Published"] * 3]
    assert [row[0] for row in rows] == ["Dense", "SET", "RigL", "GSE"]
    name, text = saved("SVG: curves")
    assert name == "curves.svg"
    assert text.startswith("<svg ")
    assert "var(" not in text
    assert "currentColor" not in text
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.get_by_role("button", name="Copy: Runs", exact=True).click()
    opened.get_by_role("button", name="Copy: Runs", exact=True).get_by_text("Copied").wait_for()
    copied = opened.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0].split("\t")[:5] == ["run", "top-1 (%)", "", "state", "method"]
    assert len(copied) == 1 + 32


def test_the_first_key_skips_to_the_results(show: Open) -> None:
    opened = show()
    opened.keyboard.press("Tab")
    link = opened.get_by_role("link", name="Skip to the results")
    assert link.evaluate("one => one == document.activeElement")
    assert link.bounding_box()["width"] > 50
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("scripts", [True, False])
def test_long_tables_are_shown_in_part_and_read_whole_without_scripts(show: Open, scripts: bool) -> None:
    opened = show(rows=10, java_script_enabled=scripts)
    shown = opened.locator(f"{ROWS}:visible")
    assert opened.get_by_role("search").is_visible() == scripts
    assert opened.locator("thead button").count() == (10 if scripts else 0)
    assert shown.count() == (10 if scripts else 32)
    if scripts:
        assert opened.get_by_role("status").inner_text() == "32 runs, the first 10 shown"
        opened.get_by_role("button", name="Show all").click()
        assert shown.count() == 32
    opened.get_by_role("button", name="details").nth(1).click()
    assert opened.locator("[popover]:visible").count() == 1


def test_paper_is_white_and_wide_enough(show: Open) -> None:
    opened = show(scheme="dark")
    opened.emulate_media(media="print", color_scheme="dark")
    assert color(opened, "body", "backgroundColor") == "#ffffff"
    for selector in ("nav", "form.filter", "[popovertarget]", ".more"):
        assert not opened.locator(selector).first.is_visible()
    assert opened.locator("pre").first.is_visible()
    assert opened.locator("ul.shared").is_visible()  # closed on the screen
    for part, sheet in (("main > section:not(#tables, #runs)", "portrait"), (":is(#tables, #runs)", "landscape")):
        opened.set_viewport_size({"width": A4[sheet], "height": 900})
        wide = f"[...document.querySelectorAll('{part} :is(table, pre, svg)')].map(one => one.scrollWidth)"
        assert max(opened.evaluate(wide)) <= A4[sheet]
    sheets = opened.pdf(prefer_css_page_size=True)
    sizes = set(re.findall(rb"/MediaBox\s*\[0 0 (\d+)", sheets))
    assert sizes == {b"594", b"841"} or sizes == {b"595", b"842"}
    assert len(re.findall(rb"/Type\s*/Page\b", sheets)) > 3
