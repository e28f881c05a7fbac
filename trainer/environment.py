"""Environment variables that every process of a run must start with. Needs no torch.

cuBLAS and NCCL read them once, when they start, so launchers set them for the child process.
"""

ENVIRONMENT = {
    # Read when cuBLAS makes its handle; other sizes may choose split-K with atomics.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # NVLS adds in an order that depends on the allocation (NVIDIA/nccl#1497).
    "NCCL_ALGO": "Ring",
}
