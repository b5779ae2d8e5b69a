"""The published format of reports."""

import json
from pathlib import Path

import pytest

from report import samples
from unhang.report import model

PUBLISHED = Path(__file__).parents[2] / "docs" / "report-schema.json"
RENEW = (
    "renew it: python -c 'import json; from unhang.report.model import schema; print(json.dumps(schema(), indent=2))' "
    "> docs/report-schema.json"
)


def test_the_published_schema_is_that_of_the_model():
    """Who reads reports can rely on it."""
    assert json.loads(PUBLISHED.read_text()) == json.loads(json.dumps(model.schema())), RENEW


@pytest.mark.parametrize("sample", samples.SAMPLES.values(), ids=lambda each: each.__name__)
def test_reports_come_back_as_they_were(sample):
    """Through JSON, with every text in them."""
    assert model.decode(model.encode(sample())) == sample()
