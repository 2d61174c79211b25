"""The method as scikit-learn's estimators: fitted on images without labels, saved, and loaded where new images are."""
