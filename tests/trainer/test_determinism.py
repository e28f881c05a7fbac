"""The switches, and what happens when somebody turned one off."""

import os
import subprocess
import sys

import torch

from tests.support.process_groups import run_ranks
from trainer import determinism
from trainer.config.compose import compose
from trainer.config.fingerprint import fingerprint
from trainer.distributed import Ranks


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` after the switches were asked for."""
    start = (
        "import torch\nfrom trainer.config.compose import compose\n"
        "from trainer import determinism\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_engage_sets_every_switch() -> None:
    code = (
        "determinism.engage(compose(['run.threads=2']))\n"
        "assert torch.are_deterministic_algorithms_enabled()\n"
        "assert not torch.backends.cudnn.benchmark and torch.backends.cudnn.deterministic\n"
        "assert not torch.backends.cudnn.allow_tf32 and torch.get_num_threads() == 2\n"
        "assert not torch.utils.deterministic.fill_uninitialized_memory\n"
    )

    assert in_a_process(code, OMP_NUM_THREADS="1").returncode == 0


UNDONE = [
    ("torch.set_deterministic_debug_mode('default')", "use_deterministic_algorithms"),
    ("torch.use_deterministic_algorithms(True, warn_only=True)", "use_deterministic"),
    ("torch.backends.cudnn.benchmark = True", "cudnn.benchmark"),
    ("torch.backends.cudnn.deterministic = False", "cudnn.deterministic"),
    ("torch.backends.cudnn.allow_tf32 = True", "cudnn.allow_tf32"),
    ("torch.backends.cuda.matmul.allow_tf32 = True", "matmul.allow_tf32"),
    ("torch.set_num_threads(2)", "1 CPU threads"),
    ("os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':0:0'", "CUBLAS_WORKSPACE_CONFIG"),
]


def test_a_switch_that_is_off_is_named() -> None:
    code = "import os\nconfig = compose([])\n"
    for undo, _ in UNDONE:
        code += (
            "os.environ.pop('CUBLAS_WORKSPACE_CONFIG', None)\n"
            "determinism.engage(config)\n"
            f"{undo}\n"
            "try: determinism.verify(config)\n"
            "except determinism.NotDeterministicError as error: print(error)\n"
        )

    done = in_a_process(code)

    said = done.stdout.splitlines()
    assert len(said) == len(UNDONE), done.stderr
    for line, (_, name) in zip(said, UNDONE, strict=True):
        assert line.startswith("Not deterministic:")
        assert name in line


HARMFUL = [
    ("OMP_DYNAMIC", "true"),
    ("NCCL_ALGO", "NVLS"),
    ("NCCL_ALGO", "Ring,NVLS"),
    ("CUBLAS_WORKSPACE_CONFIG", ":0:0"),
]


def test_an_environment_that_cannot_repeat_itself_is_refused() -> None:
    code = "import os\n"
    for name, value in HARMFUL:
        code += (
            f"os.environ['{name}'] = '{value}'\n"
            "try: determinism.engage(compose([]))\n"
            "except determinism.NotDeterministicError as error: print(error)\n"
            f"del os.environ['{name}']\n"
        )

    done = in_a_process(code)

    said = done.stdout.splitlines()
    assert len(said) == len(HARMFUL), done.stderr
    for line, (name, _) in zip(said, HARMFUL, strict=True):
        assert name in line
        assert "unset" in line.lower()


# No card is needed to look as if CUDA or NCCL had been started: the questions are torch's.
STARTED = [
    ("torch.cuda.is_initialized = lambda: True", "CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    (
        "torch.distributed.get_backend = lambda: 'nccl'\n"
        "torch.distributed.is_initialized = lambda: True",
        "NCCL_ALGO",
        "Ring",
    ),
]


def test_switches_that_come_too_late_are_refused() -> None:
    code = "import os\n"
    for started, name, value in STARTED:
        code += (
            f"os.environ.pop('{name}', None)\n{started}\n"
            "try: determinism.engage(compose([]))\n"
            "except determinism.NotDeterministicError as error: print(error)\n"
            f"os.environ['{name}'] = '{value}'\n"
            "determinism.engage(compose([]))\n"
        )

    done = in_a_process(code)

    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(said) == 2
    for line, (_, name, value) in zip(said, STARTED, strict=True):
        assert f"without {name}={value}" in line


def test_tf32_is_chosen_and_never_left_to_torch() -> None:
    code = (
        "for precision in ('fp32', 'tf32', 'bf16'):\n"
        "    determinism.engage(compose([f'optim.precision={precision}']))\n"
        "    print(torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)\n"
    )

    assert in_a_process(code).stdout.split() == ["False"] * 2 + ["True"] * 4


def test_precision_is_part_of_the_fingerprint() -> None:
    kinds = [fingerprint(compose([f"optim.precision={p}"])) for p in ("fp32", "tf32", "bf16")]

    assert len(set(kinds)) == 3


def test_a_digest_sees_names_shapes_types_and_bits() -> None:
    x = torch.arange(6.0)
    variants = [{"a": x}, {"b": x}, {"a": x.view(2, 3)}, {"a": x.double()}, {"a": x + 1e-6}]

    digests = [determinism.digest(v) for v in variants]

    assert len(set(digests)) == len(variants)
    assert determinism.digest({"a": x.clone()}) == digests[0]
    by_columns = x.view(2, 3).t().contiguous().t()
    assert determinism.digest({"a": by_columns}) == digests[2]


def gradients_in_two_orders() -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    rank = torch.distributed.get_rank()
    ranks = Ranks(rank, 3, torch.device("cpu"))
    draws = [
        torch.randn(n, generator=torch.Generator().manual_seed(10 * n + rank)) for n in (5, 1, 7)
    ]
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        parameters = [torch.nn.Parameter(torch.zeros_like(draw)) for draw in draws]
        for parameter, draw in zip(parameters, draws, strict=True):
            parameter.grad = draw.clone()
        ranks.sum_gradients([parameters[i] for i in order])
        found.append([p.grad for p in parameters])
    return found[0], found[1], ranks.sum(draws[2])


def test_the_gradient_sum_does_not_depend_on_where_a_parameter_lies() -> None:
    rows = run_ranks(gradients_in_two_orders, 3)

    parts = [
        torch.randn(7, generator=torch.Generator().manual_seed(70 + rank)) for rank in range(3)
    ]
    expected = (parts[0] + parts[1]) + parts[2]  # rank order, left to right
    for first, second, summed in rows:
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert torch.equal(first[2], expected)
        assert torch.equal(summed, expected)


def test_cuda_without_a_card_is_refused_before_anything_starts() -> None:
    if torch.cuda.is_available():
        return  # the GPU tests cover this machine
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "run.device=cuda"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "torch sees no CUDA device here" in done.stderr


def test_bits_are_the_same_whatever_uninitialised_memory_holds() -> None:
    # Filled with NaN, memory that somebody reads before writing would spoil the loss.
    code = (
        "import sys, tempfile, pathlib\n"
        "from tests.support.tiny_config import tiny_config\n"
        "from trainer.run import train\n"
        "engage = determinism.engage\n"
        "def filled(config):\n"
        "    engage(config)\n"
        "    torch.utils.deterministic.fill_uninitialized_memory = sys.argv[-1] == 'fill'\n"
        "determinism.engage = filled\n"
        "folder = pathlib.Path(tempfile.mkdtemp())\n"
        "config = tiny_config(folder / 'data', 'loss=kl', 'optim.epochs=1')\n"
        "print(train(config, folder / 'run').weights_sha256)\n"
    )
    runs = []
    for word in ("fill", "leave"):
        start = (
            "import torch\nfrom trainer.config.compose import compose\n"
            "from trainer import determinism\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", start + code, word], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        runs.append(done.stdout)

    assert len(runs[0].strip()) == 64
    assert runs[0] == runs[1]


def test_the_environment_for_workers_leaves_out_nvls() -> None:
    assert "NVLS" not in determinism.ENVIRONMENT["NCCL_ALGO"]
    determinism.enable_determinism(compose([]))
