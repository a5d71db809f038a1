"""html_report: a store as one HTML file, for colleagues. `write` has the verb; the templates lie in ``templates/``."""
