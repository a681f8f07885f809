from page_fixtures import both, browse, parse, report, report_of_both, study  # noqa: F401
