from .store import FeatureStore as FeatureStore
