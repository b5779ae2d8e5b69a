"""A report as a page. What a real browser makes of it is in tests/peers."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from report import samples
from report.random_reports import reports
from unhang.report import html, text


class Page(HTMLParser):
    """The elements of a page, and what would fetch or run something."""

    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.outside = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.outside += [
            (tag, name, value)
            for name, value in attrs
            if name.startswith("on") or name in ("src", "href", "xlink:href", "action", "srcset")
        ]

    def handle_data(self, data):
        self.text += data

    def having(self, word):
        return [tag for tag, attributes in self.elements if word in (attributes.get("class") or "").split()]


@pytest.mark.parametrize("sample", samples.SAMPLES.values(), ids=lambda each: each.__name__)
def test_the_page_needs_and_runs_nothing(sample):
    """No script, no link, nothing from anywhere else, whatever the texts in it are."""
    rendered = html.render(sample())
    page = Page(rendered)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form", "a", "image", "use"}
    assert page.outside == []
    assert "url(" not in rendered
    assert "@import" not in rendered
    assert "\x1b" not in rendered


def test_there_is_a_row_for_each_worker():
    """In the timeline, and in the list below."""
    page = Page(html.render(samples.slow_loader()))
    assert len(page.having("row")) == 8 + 8
    assert len(page.having("culprit-row")) == 2
    assert sum(tag == "details" for tag, _ in page.elements) == 8


def test_equal_stacks_are_shown_once():
    """With the ranks that share them; the user's frame stands out."""
    page = Page(html.render(samples.sixty_four()))
    stacks = re.search(r"Stacks(.*)Workers", page.text, re.DOTALL)[1]
    assert stacks.count("all_reduce /opt") == 1
    assert "ranks 0-36,38-63" in stacks
    assert "while not header.complete:" in stacks


def test_what_is_known_about_a_worker_is_there():
    """Command, sockets, children, standard error, other threads."""
    page = Page(html.render(samples.lone())).text
    for word in ("python train.py --lr 0.1", "10.0.0.2:29500", "pt_data_worker", "waiting for data", "pin_memory"):
        assert word in page


def test_the_legend_and_the_outcome_are_sentences():
    """Each item of the legend begins with a capital and ends with a full stop; so does what became of a worker."""
    page = html.render(samples.slow_loader())
    legend = re.search(r'<ul class="legend">(.*?)</ul>', page, re.DOTALL)[1]
    items = [re.sub(r"<[^>]*>", "", item).strip() for item in re.findall(r"<li>(.*?)</li>", legend, re.DOTALL)]
    assert len(items) > 5
    assert all(re.fullmatch(r"[A-Z].*[a-z]\.", item) for item in items), items
    assert "<dt>Outcome</dt><dd>It was killed. It ended by SIGKILL.</dd>" in page


def test_one_of_each_is_no_plural():
    """Of what is counted, as text and as a page: a timer that was armed once, one page, one thread, one more worker."""
    lone = samples.lone()
    (worker,) = lone.workers
    process = replace(worker.evidence.process, threads=1, major_faults=1, swapped=1)
    worker = replace(worker, sequence=1, evidence=replace(worker.evidence, process=process))
    ones = replace(lone, workers=(worker,), progressing=1)
    page = Page(html.render(ones)).text
    for said in ("armed once,", "1 page read from disk; 1 thread", "1 more makes progress", "1 byte swapped"):
        assert said in page
    assert "1 more makes progress" in text.render(ones)


@given(reports)
@settings(max_examples=100)
def test_any_report_is_a_page(report):
    """Whatever the model allows."""
    page = Page(html.render(report))
    assert page.outside == []
    assert page.elements[0][0] == "html"
    assert not any(tag == "script" for tag, _ in page.elements)
