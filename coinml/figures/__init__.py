"""Figures of training, evaluation, comparison and attrition, in one style."""
