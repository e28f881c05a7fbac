"""Results for other tools: CSV, TensorBoard, MLflow and Weights & Biases, all as files."""
