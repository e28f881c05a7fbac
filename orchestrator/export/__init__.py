"""Exports of runs to CSV, TensorBoard, MLflow and Weights & Biases."""
