"""The page of a report in a real Chromium."""

import http.server
import re
import shutil
import subprocess
import threading

import msgspec
import pytest

from report import samples
from unhang.report import html

# A browser takes its time to start.
pytestmark = pytest.mark.budget(150)


class _Counted(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_error(404)

    do_CONNECT = do_POST = do_HEAD = do_GET  # noqa: N815 - as its base class calls them

    def log_message(self, *arguments):
        pass


@pytest.fixture
def proxy():
    """A proxy that notes what is asked for and has nothing."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Counted) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def chromium(tmp_path, proxy):
    """Load a page, and return the document that the browser made of it. Fails without a browser.

    What it would ask of other hosts it asks of a proxy that has nothing.
    """
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program, "install Chromium: these tests need a real browser"

    def load(page):
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8")
        options = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --disable-dev-shm-usage"
        )
        own = [f"--user-data-dir={tmp_path}/profile", f"--proxy-server=127.0.0.1:{proxy.server_port}"]
        quiet = [program, *options.split(), *own]
        done = subprocess.run(
            [*quiet, "--dump-dom", path.as_uri()],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=True,
        )
        return done.stdout

    return load


@pytest.mark.parametrize("sample", [samples.lone, samples.slow_loader, samples.sixty_four, samples.out_of_memory])
def test_headline_and_a_row_for_each_worker(chromium, sample):
    """In the document as the browser has it."""
    report = sample()
    dom = chromium(html.render(report))
    headline = re.search(r"<h1>(.*?)</h1>", dom, re.DOTALL)[1]
    assert headline.startswith(("rank", "worker"))
    first = re.search(r"<svg viewBox.*?</svg>", dom, re.DOTALL)[0]
    workers = [*report.workers, *report.departed]
    labels = re.findall(r'<text class="name-[a-z]+"[^>]*>([^<]*)</text>', first)
    assert sorted(labels) == sorted(
        f"rank {each.rank}" if each.rank is not None else f"worker {each.pid}" for each in workers
    )
    assert first.count('class="row ') == len(workers)


def test_no_script_of_a_worker_runs(chromium):
    """What a scope, a file name or standard error contains is shown, and nothing else."""
    dom = chromium(html.render(samples.hostile()))
    assert "<title>owned</title>" not in dom
    assert "<script" not in dom
    assert "&lt;script&gt;" in dom


def test_not_even_one_that_got_into_the_page_would_run(chromium):
    """The page forbids scripts to the browser; without that this one runs, so that the test can fail."""
    page = html.render(samples.lone())
    bad = page.replace("</body>", "<script>document.title = 'owned'</script></body>")
    assert "<title>owned</title>" not in chromium(bad)
    unguarded = re.sub(r"<meta http-equiv=.Content-Security-Policy[^>]*>", "", bad)
    assert "<title>owned</title>" in chromium(unguarded)


FETCHING = """<img src="http://picture.example/x.png"><style>body{background:url(http://picture.example/y)}</style>"""


def test_nothing_is_fetched(chromium, proxy):
    """The texts of a worker make the browser ask for nothing; as a page of their own they would."""
    report = samples.hostile()
    report = msgspec.structs.replace(report, headline=FETCHING, job=FETCHING)
    chromium(html.render(report))
    assert not any("picture.example" in path for path in proxy.asked)
    chromium(FETCHING)
    assert any("picture.example" in path for path in proxy.asked)
