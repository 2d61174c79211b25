"""Every page in a browser, opened from disk: mathematics set, nothing wider than a phone, no request to anywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from finished_runs import html_pages

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-quic", "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--allow-file-access-from-files", "--virtual-time-budget=30000", "--dump-dom"),
)
DESKTOP, PHONE = 1300, 390
# One page that holds all the others as frames of both widths: a browser window itself is never as narrow as a phone.
MEASURE = """<script>
addEventListener("load", async () => {
  const found = [];
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, mathjax = frame.contentWindow.MathJax;
    if (mathjax && mathjax.startup) await mathjax.startup.promise;
    found.push({
      file: frame.title, width: frame.contentWindow.innerWidth, scroll: page.documentElement.scrollWidth,
      set: page.querySelectorAll("mjx-container").length, errors: page.querySelectorAll("mjx-merror").length,
      broken: [...page.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
    });
  }
  document.querySelector("pre").textContent = JSON.stringify(found);
});
</script>"""


def browse(folder: Path, frames: list[tuple[Path, int]]) -> tuple[list[dict[str, Any]], list[str]]:
    """What was measured in every frame, and the addresses that the pages asked for."""
    shown = (
        f'<iframe title="{p}" src="{p.as_uri()}" width={w} height=900 style="border:0"></iframe>' for p, w in frames
    )
    wrapper, log = folder / "frames.html", folder / "net.json"
    wrapper.write_text("<!doctype html><meta charset=utf-8><pre></pre>" + "\n".join(shown) + MEASURE)
    own = [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", wrapper.as_uri()]
    done = subprocess.run([CHROMIUM or "", *FLAGS, *own], capture_output=True, text=True, check=True)
    measured = re.search("<pre>(.+?)</pre>", done.stdout, re.S)
    assert measured, done.stdout[:2000]
    events = (event.get("params", {}) for event in json.loads(log.read_text())["events"])
    # the browser's own requests have "not an origin" for initiator
    asked = {e["url"] for e in events if "url" in e and str(e.get("initiator", "")).startswith(("file:", "null"))}
    return json.loads(unescape(measured[1])), sorted(url for url in asked if not url.startswith(("file:", "data:")))


@pytest.fixture(scope="module")
def browsed(labelled_book, many_book, default_book, tmp_path_factory) -> tuple[list[dict[str, Any]], list[str]]:
    pages = [*html_pages(labelled_book / "html"), *html_pages(many_book / "html" / "chapters")]
    pages += html_pages(default_book / "html")
    return browse(tmp_path_factory.mktemp("browser"), [(page, width) for page in pages for width in (DESKTOP, PHONE)])


def test_every_formula_is_set_and_nothing_else(browsed):
    """Class names such as `$x$` are no formulas."""
    frames, _ = browsed
    for frame in frames:
        formulas = re.findall(r'class="math\b', Path(frame["file"]).read_text())
        assert (frame["set"], frame["errors"]) == (len(formulas), 0), frame["file"]
    assert sum(frame["set"] for frame in frames) > 20


def test_every_picture_is_shown(browsed):
    frames, _ = browsed
    assert [frame["broken"] for frame in frames if frame["broken"]] == []


def test_no_page_scrolls_sideways(browsed):
    frames, _ = browsed
    assert {frame["width"] for frame in frames} == {DESKTOP, PHONE}
    assert [(f["file"], f["width"], f["scroll"]) for f in frames if f["scroll"] > f["width"]] == []


def test_no_page_asks_a_network_for_anything(browsed):
    _, asked = browsed
    assert asked == []


def test_the_browser_would_have_told(tmp_path):
    """The measures above, on a page with each of the faults."""
    page = tmp_path / "faulty.html"
    page.write_text(
        '<!doctype html><div style="width:900px">wide</div><img src="http://example.invalid/x.png"><img src="a.png">'
    )
    (frame,), asked = browse(tmp_path, [(page, PHONE)])
    assert frame["scroll"] >= 900
    assert len(frame["broken"]) == 2
    assert asked == ["http://example.invalid/x.png"]
