from __future__ import annotations

from datetime import date

import msgspec
import pytest

from streamq.processors.reports_request import Period, ReportFilters, ReportRequest

TODAY = date(2024, 3, 1)


def test_the_field_names_of_the_wire_are_camel_case():
    request = msgspec.convert(
        {"reportType": "monthly-summary", "userId": "user-123", "filters": {"month": 11, "year": 2024}}, ReportRequest
    )
    assert (request.report_type, request.user_id, request.filters.month) == ("monthly-summary", "user-123", 11)


@pytest.mark.parametrize(
    ("filters", "period"),
    [
        ({"month": 2, "year": 2024}, Period(date(2024, 2, 1), date(2024, 2, 29), "February 2024")),
        ({"year": 2023}, Period(date(2023, 1, 1), date(2023, 12, 31), "2023")),
        ({"period": "previous-month"}, Period(date(2024, 2, 1), date(2024, 2, 29), "February 2024")),
        ({"period": "this-month"}, Period(date(2024, 3, 1), date(2024, 3, 31), "March 2024")),
        ({"period": "previous-year"}, Period(date(2023, 1, 1), date(2023, 12, 31), "2023")),
        ({"period": "this-year"}, Period(date(2024, 1, 1), date(2024, 12, 31), "2024")),
        ({}, Period(None, TODAY, "until 2024-03-01")),
    ],
)
def test_filters_mean_whole_days(filters, period):
    assert msgspec.convert(filters, ReportFilters).resolve(TODAY) == period


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"reportType": "x", "filters": {"month": 13, "year": 2024}}, r"<= 12.*filters\.month"),
        ({"reportType": "x", "filters": {"month": 1}}, r"filters\.month needs filters\.year"),
        ({"reportType": "x", "filters": {"year": 2024, "period": "this-year"}}, "not both"),
        ({"reportType": "x", "filters": {"mnth": 1}}, "unknown field `mnth`"),
        ({"reportType": "x", "formats": ["docx"]}, "docx"),
        ({"reportType": "x", "formats": []}, ">= 1"),
        ({"reportType": "custom"}, "needs a query"),
        ({"reportType": "x", "query": "q"}, "only it takes one"),
        ({}, "reportType"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_field(data, reason):
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert(data, ReportRequest)
