from .features import Features as Features
from .nearest import mutual_matches as mutual_matches
from .pair import PairMatch as PairMatch
from .pair import check_matches as check_matches
from .pair import check_pair as check_pair
from .similarity import count_inliers as count_inliers
from .verdict import MIN_INLIERS as MIN_INLIERS
from .verdict import Verdict as Verdict
