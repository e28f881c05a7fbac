"""Results for other tools: CSV, TensorBoard and the files of MLflow."""
