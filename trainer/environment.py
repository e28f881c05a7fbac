"""Variables every worker process must start with; read without importing torch."""

ENVIRONMENT = {
    # Read when cuBLAS makes its handle; other sizes may choose split-K with atomics.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # NVLS adds in an order that depends on the allocation (NVIDIA/nccl#1497).
    "NCCL_ALGO": "Ring",
}
