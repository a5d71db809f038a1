from .all_pairs import Pairs as Pairs
from .all_pairs import pairs as pairs
from .evaluation import Evaluation as Evaluation
from .evaluation import evaluate as evaluate
from .html_report.write import report as report
