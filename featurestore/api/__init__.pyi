from .images import Images as Images
from .store import FeatureStore as FeatureStore
