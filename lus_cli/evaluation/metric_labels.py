"""The metrics: their labels on pages and in tables, their ranges, and which are better if lower."""

from __future__ import annotations

import numpy as np

# Name of each metric -> its label, in display order.
METRICS = {
    "accuracy": "Accuracy",
    "f1_micro": "F1, micro",
    "f1_macro": "F1, macro",
    "f1_weighted": "F1, weighted",
    "kappa_quadratic": "Kappa, quadratic",
    "mean_absolute_error": "Mean absolute error",
    "auroc_macro": "AUROC, one vs rest",
    "brier": "Brier score",
    "ece": "Calibration error",
    "sord_loss": "SORD loss",
    "sord_excess": "SORD above its floor",
}
# The range of each metric that is not a share.
LIMITS: dict[str, tuple[float, float]] = {
    "kappa_quadratic": (-1.0, 1.0),
    "mean_absolute_error": (0.0, 3.0),
    "brier": (0.0, 2.0),
    "sord_loss": (0.0, np.inf),
    "sord_excess": (0.0, np.inf),
    "nll": (0.0, np.inf),
}
LOWER_IS_BETTER = {"mean_absolute_error", "brier", "ece", "sord_loss", "sord_excess"}
CLASS_METRICS = ("recall", "precision", "f1", "auroc")
