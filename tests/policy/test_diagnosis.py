"""From evidence to the class of a failure: a table per kind of evidence."""

from __future__ import annotations

import errno
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from reelwright.backends.wan21 import facts
from reelwright.core.errors import Failure, InvalidInputError
from reelwright.core.plan import Command, Plan
from reelwright.policy import Evidence, ExceptionSeen, RankError
from reelwright.policy.diagnosis import diagnose
from reelwright.policy.progress import LogReader

LOGS = Path(__file__).parents[1] / "logs"
A_PLAN = Plan("wan2.1", "i2v", True, Command(("python",), Path("/"), dialect=facts.dialect(3)), None)


def evidence_of(name: str) -> Evidence:
    """What the executor would have seen of a real run."""
    text = (LOGS / name).read_text("utf-8")
    status = int(re.search(r"exit status: (-?\d+)", text)[1])  # type: ignore[index]
    return evidence_from(text.partition("---- stdout ----\n")[2], status)


def evidence_from(log: str, status: int) -> Evidence:
    """What the executor sees of a run that says ``log`` and ends with this status, or by this signal if negative."""
    reader = LogReader(facts.dialect(3), ["hi"])
    reader.feed(log.encode())
    reader.close()
    return Evidence(
        exit_status=status if status >= 0 else None,
        signal_number=-status if status < 0 else None,
        phase=reader.phase,
        step=reader.step,
        total_steps=reader.total,
        tail=tuple(reader.tail),
        exceptions=tuple(reader.exceptions),
        rank_errors=reader.rank_errors,
    )


REAL = {
    "bad_size": (Failure.CONFIG, "arguments"),
    "fsdp_single": (Failure.CONFIG, "arguments"),
    "ulysses_not_world": (Failure.CONFIG, "arguments"),
    "unknown_flag": (Failure.CONFIG, "arguments"),
    "unknown_flag_two_ranks": (Failure.CONFIG, "arguments"),
    "flf2v_49_frames": (Failure.CONFIG, "shape"),
    "frames_not_4n1": (Failure.CONFIG, "shape"),
    "missing_image": (Failure.ENV, "image"),
    "missing_t5": (Failure.MODEL, "missing"),
    "ckpt_no_config": (Failure.MODEL, "missing"),
    "ckpt_no_tokenizer": (Failure.MODEL, "missing"),
    "ckpt_shard_missing": (Failure.MODEL, "missing"),
    "ckpt_no_shards": (Failure.MODEL, "missing"),
    "ckpt_header_too_large": (Failure.MODEL, "corrupt"),
    "ckpt_shard_cut": (Failure.MODEL, "corrupt"),
    "ckpt_shard_empty": (Failure.MODEL, "corrupt"),
    "ckpt_shard_lfs": (Failure.MODEL, "corrupt"),
    "ckpt_t5_cut": (Failure.MODEL, "corrupt"),
    "ckpt_t5_empty": (Failure.MODEL, "corrupt"),
    "ckpt_t5_lfs": (Failure.MODEL, "corrupt"),
    "oom_dit": (Failure.OOM_GPU, "dit"),
    "oom_dit_two_ranks": (Failure.OOM_GPU, "dit"),
    "oom_load": (Failure.OOM_GPU, "load"),
    "oom_vae": (Failure.OOM_GPU, "vae"),
    "rank1_killed": (Failure.CRASH, "SIGKILL"),
    "term_single": (Failure.CRASH, "SIGTERM"),
    "term_torchrun": (Failure.CRASH, "signal"),
    "int_torchrun": (Failure.CRASH, "signal"),
    "save_fails": (Failure.OUTPUT, ""),
    "missing_folder": (Failure.OUTPUT, ""),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_what_the_real_framework_printed_has_the_right_class(name: str) -> None:
    found = diagnose(evidence_of(f"wan21_real_{name}.txt"), A_PLAN)
    assert (found.failure, found.cause) == REAL[name]


def test_every_real_failure_that_was_kept_is_in_the_table() -> None:
    kept = {path.stem.removeprefix("wan21_real_") for path in LOGS.glob("wan21_real_*.txt")}
    assert kept - set(REAL) <= {"single", "two_ranks", "flf2v", "ckpt_flf2v_for_i2v"}


REPORTED = {
    "flash_attention_v100": (Failure.ENV, "flash-attn-card", "FlashAttention only supports Ampere GPUs or newer."),
    "no_kernel_image": (Failure.ENV, "card", "no kernel image is available"),
    "image_tokens": (Failure.ENV, "transformers", "tokens: 1, features 576"),
    "allocator_assertion": (Failure.OOM_GPU, "dit", "CUDACachingAllocator"),
    "nccl_out_of_memory": (Failure.OOM_GPU, "load", "Cuda failure 2 'out of memory'"),
    "nccl_shared_memory": (Failure.ENV, "shm", "shared memory segment|failed to extend"),
    "watchdog_out_of_memory": (Failure.OOM_GPU, "dit", "CUDA error: out of memory"),
    "state_dict_size": (Failure.MODEL, "keys", "size mismatch for patch_embedding.weight"),
}


@pytest.mark.parametrize("name", sorted(REPORTED))
def test_what_people_reported_has_the_right_class_and_its_own_words_as_evidence(name: str) -> None:
    failure, cause, words = REPORTED[name]
    found = diagnose(evidence_of(f"reported_{name}.txt"), A_PLAN)
    assert found.failure is failure
    assert found.cause == cause or failure is Failure.OOM_GPU
    assert any(re.search(words, line) for line in found.evidence)
    assert not [line for line in found.evidence if "Root Cause" in line or "elastic" in line]
    assert found.advice


TEXTS = [
    ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", Failure.OOM_GPU, "dit"),
    ("RuntimeError: CUDA error: out of memory", Failure.OOM_GPU, "dit"),
    ("RuntimeError: HIP out of memory. Tried to allocate", Failure.OOM_GPU, "dit"),
    ("RuntimeError: CUDA error: an illegal memory access was encountered", Failure.CRASH, "gpu-fault"),
    ("RuntimeError: CUDA error: unspecified launch failure", Failure.CRASH, "gpu-fault"),
    ("RuntimeError: CUDA error: uncorrectable ECC error encountered", Failure.CRASH, "gpu-fault"),
    ("ModuleNotFoundError: No module named 'flash_attn'", Failure.ENV, "flash-attn"),
    ("ImportError: /x/flash_attn_2_cuda.so: undefined symbol: _ZN3c10", Failure.ENV, "flash-attn"),
    ("ModuleNotFoundError: No module named 'xfuser'", Failure.ENV, "xfuser"),
    ("ImportError: Ulysses Attention and Ring Attention requires xfuser package.", Failure.ENV, "xfuser"),
    ("ValueError: Attempted to reuse key: 'SAGE_FP16_TRITON'", Failure.ENV, "xfuser"),
    ("wan21.py: error: this xfuser cannot compute the attention between GPUs without", Failure.ENV, "xfuser"),
    ("wan21.py: error: the tables of sizes in wan/configs/__init__.py are not", Failure.ENV, "launcher"),
    ("hunyuan.py: error: hyvideo/utils/file_utils.py has no save_videos_grid", Failure.ENV, "launcher"),
    ("RuntimeError: Found no NVIDIA driver on your system.", Failure.ENV, "no-gpu"),
    ("AssertionError: Torch not compiled with CUDA enabled", Failure.ENV, "no-gpu"),
    ("RuntimeError: CUDA error: invalid device ordinal", Failure.ENV, "no-gpu"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", Failure.MODEL, "corrupt"),
    ("_pickle.UnpicklingError: invalid load key, 'v'.", Failure.MODEL, "corrupt"),
    ("RuntimeError: Error(s) in loading state_dict for WanModel:", Failure.MODEL, "keys"),
    (
        'RuntimeError: Error(s) in loading state_dict for X:\n\tMissing key(s) in state_dict: "a.w".',
        Failure.MODEL,
        "keys",
    ),
    ("KeyError: 'blocks.0.self_attn.q.weight'", Failure.MODEL, "keys"),
    ("ValueError: Cannot load x because the following keys are missing: \n a.weight", Failure.MODEL, "keys"),
    ("RuntimeError: FlashAttention only supports Ampere GPUs or newer.", Failure.ENV, "flash-attn-card"),
    ("RuntimeError: FlashAttention only supports Hopper GPUs or newer.", Failure.ENV, "flash-attn-card"),
    ("RuntimeError: CUDA error: no kernel image is available for execution on the device", Failure.ENV, "card"),
    ("RuntimeError: CUDA error: device kernel image is invalid", Failure.ENV, "card"),
    ("AssertionError: CUDA error: unsupported gpu architecture 'compute_120'", Failure.ENV, "card"),
    ("RuntimeError: \"addmm_impl\" not implemented for 'BFloat16'", Failure.ENV, "precision"),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).", Failure.ENV, "driver"),
    ("RuntimeError: CUDA driver version is insufficient for CUDA runtime version", Failure.ENV, "driver"),
    ("RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain.", Failure.ENV, "driver"),
    ("RuntimeError: CUDA error: all CUDA-capable device(s) is/are busy or unavailable", Failure.ENV, "no-gpu"),
    (
        "ValueError: Image features and image tokens do not match: tokens: 512, features 3133",
        Failure.ENV,
        "transformers",
    ),
    (
        "ValueError: The checkpoint you are trying to load has model type `x` but Transformers does not recognize this architecture.",
        Failure.ENV,
        "transformers",
    ),
    (
        "ImportError: cannot import name 'LlavaForConditionalGeneration' from 'transformers' (/x/__init__.py)",
        Failure.ENV,
        "transformers",
    ),
    ("AttributeError: module transformers has no attribute UMT5EncoderModel", Failure.ENV, "transformers"),
    ("ValueError: numpy.dtype size changed, may indicate binary incompatibility.", Failure.ENV, "numpy"),
    ("RuntimeError: Numpy is not available", Failure.ENV, "numpy"),
    ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable.", Failure.ENV, "compiler"),
    ("ImportError: libGL.so.1: cannot open shared object file: No such file or directory", Failure.ENV, "library"),
    ("RuntimeError: operator torchvision::nms does not exist", Failure.ENV, "import"),
    (
        "_pickle.UnpicklingError: Weights only load failed.\nWeightsUnpickler error: Unsupported global: GLOBAL x.y",
        Failure.MODEL,
        "pickle",
    ),
    ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", Failure.MODEL, "missing"),
    ("PermissionError: [Errno 13] Permission denied: '/models/x'", Failure.PERM, "rights"),
    ("OSError: [Errno 24] Too many open files: '/x'", Failure.ENV, "limits"),
    ("RuntimeError: unable to open shared memory object </torch_1> in read-write mode", Failure.ENV, "shm"),
    (
        "torch.distributed.DistBackendError: NCCL error in: x.cpp:1\nLast error:\nError while creating shared memory segment /dev/shm/nccl-a (size 33030528), error: No space left on device",
        Failure.ENV,
        "shm",
    ),
    ("OSError: [Errno 28] No space left on device: '/dev/shm/torch_7'", Failure.ENV, "shm"),
    (
        'RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":838',
        Failure.OOM_GPU,
        "dit",
    ),
    (
        'RuntimeError: !handles_.at(i) INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":393',
        Failure.OOM_GPU,
        "dit",
    ),
    (
        "torch.distributed.DistBackendError: NCCL error in: x.cpp:1\nLast error:\nCuda failure 2 'out of memory'",
        Failure.OOM_GPU,
        "dit",
    ),
    ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", Failure.OOM_GPU, "dit"),
    (
        "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        Failure.OOM_GPU,
        "dit",
    ),
    ("RuntimeError: CUDA driver error: out of memory", Failure.OOM_GPU, "dit"),
    ("RuntimeError: Unable to find a valid cuDNN algorithm to run convolution", Failure.OOM_GPU, "dit"),
    ("RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", Failure.OOM_GPU, "dit"),
    ("RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", Failure.CRASH, "gpu-fault"),
    ("RuntimeError: CUDA error: misaligned address", Failure.CRASH, "gpu-fault"),
    ("torch.AcceleratorError: CUDA error: an illegal instruction was encountered", Failure.CRASH, "gpu-fault"),
    ("RuntimeError: CUDA error: the launch timed out and was terminated", Failure.CRASH, "gpu-fault"),
    ("RuntimeError: cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.", Failure.ENV, "cudnn"),
    ("RuntimeError: GET was unable to find an engine to execute this computation", Failure.ENV, "cudnn"),
    ("RuntimeError: CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`", Failure.ENV, "precision"),
    ("RuntimeError: torch._scaled_mm is only supported on CUDA devices with", Failure.ENV, "precision"),
    ("ValueError: type fp8e4nv not supported in this architecture", Failure.ENV, "precision"),
    ("RuntimeError: ptxas error: Feature '.bf16' requires .target sm_80 or higher", Failure.ENV, "precision"),
    ("RuntimeError: ptxas fatal   : Value 'sm_120' is not defined for option 'gpu-name'", Failure.ENV, "card"),
    ("RuntimeError: No available kernel. Aborting execution.", Failure.ENV, "card"),
    ("RuntimeError: HIP error: invalid device function", Failure.ENV, "card"),
    ("triton.OutOfResources: out of resource: shared memory, Required: 114688", Failure.ENV, "card"),
    ("ImportError: FlashAttention2 has been toggled on, but it cannot be used", Failure.ENV, "flash-attn"),
    ("NameError: name 'flash_attn_varlen_func' is not defined", Failure.ENV, "flash-attn"),
    ("RuntimeError: FlashAttention is only supported on CUDA 11.6 and above", Failure.ENV, "flash-attn"),
    ("RuntimeError: No HIP GPUs are available", Failure.ENV, "no-gpu"),
    ("RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: not yet", Failure.ENV, "no-gpu"),
    ("RuntimeError: Error 804: forward compatibility was attempted on non supported HW", Failure.ENV, "driver"),
    (
        "torch.distributed.DistBackendError: NCCL error in: x\nLast error:\nDuplicate GPU detected : rank 1 and rank 0",
        Failure.ENV,
        "duplicate-gpu",
    ),
    ("RuntimeError: It is possible that dataloader's workers are out of shared memory.", Failure.ENV, "shm"),
    ("RuntimeError: unable to allocate shared memory(shm) for file </torch_29_37>", Failure.ENV, "shm"),
    ("TypeError: WanModel.__init__() got an unexpected keyword argument 'foo'", Failure.ENV, "versions"),
    ("TypeError: generate() missing 1 required positional argument: 'clip_fea'", Failure.ENV, "versions"),
    ("AttributeError: module 'torch' has no attribute 'compiler'", Failure.ENV, "versions"),
    ("AttributeError: 'WanModel' object has no attribute 'enable_teacache'", Failure.ENV, "versions"),
    ("AttributeError: 'NoneType' object has no attribute 'shape'", Failure.FRAMEWORK, ""),
    (
        "NotImplementedError: Could not run 'torchvision::nms' with arguments from the 'CUDA' backend.",
        Failure.ENV,
        "versions",
    ),
    ("RuntimeError: Expected all tensors to be on the same device, but found", Failure.CONFIG, "parts"),
    ("RuntimeError: mat1 and mat2 must have the same dtype, but got BFloat16 and Float", Failure.CONFIG, "parts"),
    ("RuntimeError: expected scalar type Half but found Float", Failure.CONFIG, "parts"),
    ("RuntimeError: Input type (float) and bias type (c10::BFloat16) should be the same", Failure.CONFIG, "parts"),
    ("RuntimeError: The size of tensor a (32760) must match the size of tensor b (31200)", Failure.CONFIG, "shape"),
    ("RuntimeError: mat1 and mat2 shapes cannot be multiplied (77x768 and 4096x5120)", Failure.MODEL, "task"),
    ("RuntimeError: expected input[1, 16, 21] to have 36 channels, but got 16 channels instead", Failure.MODEL, "task"),
    ("ValueError: Please pass the argument `trust_remote_code=True` to allow", Failure.MODEL, "remote-code"),
    (
        "ValueError: Loading /m requires you to execute the configuration file in that repo",
        Failure.MODEL,
        "remote-code",
    ),
    ("OSError: Can't load tokenizer for '/models/google/umt5-xxl'. If you were", Failure.MODEL, "missing"),
    (
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443)",
        Failure.MODEL,
        "missing",
    ),
    ("json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)", Failure.MODEL, "corrupt"),
    ("RuntimeError: Invalid magic number; corrupt file?", Failure.MODEL, "corrupt"),
    ("RuntimeError: [enforce fail] DefaultCPUAllocator: not enough memory: you tried", Failure.OOM_HOST, "allocation"),
    ("OSError: [Errno 36] File name too long: '/x'", Failure.INPUT, "name"),
    ("RuntimeError: No ffmpeg exe could be found. Install ffmpeg on your system", Failure.ENV, "writer"),
    ("torch._inductor.exc.InductorError: Cannot find a working triton installation.", Failure.ENV, "compiler"),
    ("AssertionError: width must be even", Failure.FRAMEWORK, "assertion"),
    ("ValueError: `models_root` not exists: ckpts", Failure.MODEL, "missing"),
    ("OSError: Error no file named diffusion_pytorch_model.bin found", Failure.MODEL, "missing"),
    ("PIL.UnidentifiedImageError: cannot identify image file 'x.png'", Failure.ENV, "image"),
    ("torch.distributed.DistNetworkError: The server socket has failed to listen on any local", Failure.PORT, "port"),
    ("RuntimeError: [c10d] EADDRINUSE, address already in use", Failure.PORT, "port"),
    (
        "AssertionError: `cfg.num_heads=40` cannot be divided evenly by `args.ulysses_size=3`.",
        Failure.CONFIG,
        "arguments",
    ),
    ("ValueError: Cannot split video sequence into ulysses_degree x ring_degree (6) parts", Failure.CONFIG, "shape"),
    ("OSError: [Errno 28] No space left on device", Failure.DISK, "space"),
    ("torch.distributed.DistBackendError: NCCL error in: ../ProcessGroupNCCL.cpp", Failure.NCCL, "nccl"),
    ("RuntimeError: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)", Failure.NCCL, "nccl"),
    ("RuntimeError: NCCL Error 1: unhandled cuda error", Failure.NCCL, "nccl"),
    ("ImportError: cannot import name 'MAX_AREA_CONFIGS' from 'wan.configs'", Failure.ENV, "framework"),
    ("ModuleNotFoundError: No module named 'easydict'", Failure.ENV, "import"),
    ("RuntimeError: DefaultCPUAllocator: can't allocate memory", Failure.OOM_HOST, "allocation"),
    ("ZeroDivisionError: division by zero", Failure.FRAMEWORK, ""),
    # What people reported: Wan2.1#90, #573, HunyuanVideo#207, HunyuanVideo-Avatar#11, Wan2GP#641, xformers#1329,
    # transformers#36291, ChatLearn#374, pytorch#128970, nnUNet#1516 and others.
    ("TypeError: not a string", Failure.MODEL, "missing"),
    (
        "ValueError: Cannot use chat template functions because tokenizer.chat_template is not set",
        Failure.MODEL,
        "missing",
    ),
    ("ValueError: The number of image tokens is 0 while the number of image given", Failure.ENV, "transformers"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/usr/local/cuda/bin/nvcc'", Failure.ENV, "compiler"),
    ("RuntimeError: Internal: src/sentencepiece_processor.cc(1101) [model_proto->Parse", Failure.MODEL, "corrupt"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/m/umt5-xxl/spiece.model'", Failure.MODEL, "missing"),
    ("httpx.ConnectError: [Errno -2] Name or service not known", Failure.MODEL, "missing"),
    ("urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name", Failure.MODEL, "missing"),
    ("RuntimeError: The expanded size of the tensor (81) must match the existing size", Failure.CONFIG, "shape"),
    ("RuntimeError: Input tensors need to be on the same GPU, but found the following", Failure.CONFIG, "parts"),
    ("subprocess.CalledProcessError: Command '['/usr/bin/gcc', '/tmp/a/main.c'", Failure.ENV, "compiler"),
    ("triton.compiler.errors.CompilationError: at 8:11:\ndef triton_(in_ptr0):", Failure.ENV, "compiler"),
    ("torch._inductor.exc.InductorError: AttributeError: type object 'CompiledKernel'", Failure.ENV, "compiler"),
    ("torch._inductor.exc.InductorError: RuntimeError: CUDA out of memory.", Failure.OOM_GPU, "dit"),
    ("ValueError: Couldn't instantiate the backend tokenizer from one of: \n(1)", Failure.ENV, "transformers"),
    ("ValueError: Cannot instantiate this tokenizer from a slow version.", Failure.ENV, "transformers"),
    ("AttributeError: 'LlamaModel' object has no attribute 'model'", Failure.ENV, "versions"),
    ("ValueError: ... we now require users to upgrade torch to at least v2.6", Failure.ENV, "versions"),
    ("ImportError: numpy.core.multiarray failed to import", Failure.ENV, "numpy"),
    ("ImportError: libc.so.6: version `GLIBC_2.32' not found (required by /v/cv2.so)", Failure.ENV, "library"),
    ("ImportError: libc.so.6: version `GLIBC_2.32' not found (required by flash_attn_2.so)", Failure.ENV, "flash-attn"),
    ("ImportError: Requires Flash-Attention version >=2.7.1,<=2.7.4 but got 2.8.0", Failure.ENV, "flash-attn"),
    ("AssertionError: Flash Attention is not available, but is needed", Failure.ENV, "flash-attn"),
    ("NotImplementedError: No operator found for `memory_efficient_attention_forward`", Failure.ENV, "flash-attn"),
    ("AssertionError: SM80 kernel is not available. Make sure you GPUs with compute", Failure.ENV, "card"),
    ("ImportError: libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4", Failure.ENV, "cuda-libraries"),
    ("RuntimeError: CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling", Failure.ENV, "cuda-libraries"),
    ("RuntimeError: cuFFT error: CUFFT_INTERNAL_ERROR", Failure.ENV, "cuda-libraries"),
    ("RuntimeError: nvrtc: error: failed to open libnvrtc-builtins.so.13.0.", Failure.ENV, "cuda-libraries"),
    ("RuntimeError: cuDNN Frontend error: No execution plans support the graph.", Failure.ENV, "cudnn"),
    ("RuntimeError: CUDA error: initialization error", Failure.ENV, "no-gpu"),
    ("KeyError: 'getpwuid(): uid not found: 1001'", Failure.ENV, "user"),
    (
        "torch.distributed.DistBackendError: NCCL error in: x.cpp:1\nCuda failure 217 'peer access is not supported'",
        Failure.NCCL,
        "peer-access",
    ),
    ("torch.distributed.DistNetworkError: The client socket has timed out after 60000ms", Failure.NCCL, "rendezvous"),
    ("UnboundLocalError: cannot access local variable 'image_index'", Failure.FRAMEWORK, ""),
]


@pytest.mark.parametrize(("text", "failure", "cause"), TEXTS)
def test_a_known_exception_has_its_class(text: str, failure: Failure, cause: str) -> None:
    evidence = Evidence(exit_status=1, phase="denoising", step=1, exceptions=(ExceptionSeen(text),))
    found = diagnose(evidence, A_PLAN)
    assert (found.failure, found.cause) == (failure, cause)


def test_flash_attentions_bare_assertion_is_known_by_its_source_line() -> None:
    seen = ExceptionSeen("AssertionError", "    assert FLASH_ATTN_2_AVAILABLE")
    assert diagnose(Evidence(exit_status=1, exceptions=(seen,)), A_PLAN).cause == "flash-attn"


def test_a_bare_assertion_shows_the_line_that_failed() -> None:
    seen = ExceptionSeen(
        "AssertionError", '  File "/x/model.py", line 3, in f\n    assert s <= max_len\n           ^^^^'
    )
    found = diagnose(Evidence(exit_status=1, exceptions=(seen,)), A_PLAN)
    assert (found.failure, found.cause) == (Failure.FRAMEWORK, "assertion")
    assert "assert s <= max_len" in found.message
    assert "assert s <= max_len" in found.evidence


@pytest.mark.parametrize("line", ["raise ImportError('requires xfuser package')", "except torch.OutOfMemoryError: x"])
def test_quoted_source_is_no_evidence(line: str) -> None:
    seen = ExceptionSeen("ZeroDivisionError: division by zero", f'  File "/x.py", line 3, in f\n    {line}')
    tail = ("Traceback (most recent call last):", '  File "/x.py", line 3, in f', f"    {line}")
    found = diagnose(Evidence(exit_status=1, exceptions=(seen,), tail=tail), A_PLAN)
    assert (found.failure, found.cause) == (Failure.FRAMEWORK, "")


def test_keys_that_do_not_fit_are_shown_and_no_download_is_advised() -> None:
    text = 'RuntimeError: Error(s) in loading state_dict for WanModel:\n\tMissing key(s) in state_dict: "img_emb.proj.0.weight".'
    found = diagnose(Evidence(exit_status=1, exceptions=(ExceptionSeen(text),)), A_PLAN)
    assert any("img_emb.proj.0.weight" in line for line in found.evidence)
    assert "another model" in found.advice


def test_of_several_tracebacks_the_last_one_ended_the_program() -> None:
    handled = ExceptionSeen("ModuleNotFoundError: No module named 'flash_attn'")
    last = ExceptionSeen("ValueError: Image features and image tokens do not match: tokens: 1, features 2")
    assert diagnose(Evidence(exit_status=1, exceptions=(handled, last)), A_PLAN).cause == "transformers"


def test_of_a_chain_of_exceptions_the_first_is_the_cause() -> None:
    first = ExceptionSeen("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge")
    second = ExceptionSeen("OSError: Unable to load weights: No space left on device", chained=True)
    assert diagnose(Evidence(exit_status=1, exceptions=(first, second)), A_PLAN).cause == "corrupt"


DENOISING = (
    "[2025-02-27 23:56:40,101] INFO: Generating video ...\n"
    "\r  0%|          | 0/3 [00:00<?, ?it/s]\r 33%|3         | 1/3 [00:09<00:18,  9.02s/it]\n"
)
TRACEBACK = 'Traceback (most recent call last):\n  File "/w/a.py", line 3, in f\n    run(model)\n{}\n'
#: Said by C++, by Python before it has a script, and by a library: no exception is raised.
LAST_WORDS = [
    ("CUDA error (hopper/flash_fwd.h:188): no kernel image is available for execution", 1, Failure.ENV, "card"),
    ("libgomp: Thread creation failed: Resource temporarily unavailable", 1, Failure.ENV, "limits"),
    ("/venv/bin/python: No module named torch.distributed.run", 1, Failure.ENV, "import"),
    (
        "/venv/bin/python: can't open file '/w/generate.py': [Errno 2] No such file or directory",
        2,
        Failure.ENV,
        "import",
    ),
    ("/v/x.py:287: UserWarning: No module named 'pynvml'", -signal.SIGKILL, Failure.CRASH, "SIGKILL"),
    ("[rank3]:[F1109 ProcessGroupNCCL.cpp:1169] watchdog got stuck for 600 seconds", -6, Failure.NCCL, "nccl"),
]


@pytest.mark.parametrize(("line", "status", "failure", "cause"), LAST_WORDS)
def test_without_an_exception_the_last_words_of_a_program_count(
    line: str, status: int, failure: Failure, cause: str
) -> None:
    found = diagnose(evidence_from(DENOISING + line, status), A_PLAN)
    assert (found.failure, found.cause) == (failure, cause)


def test_words_before_the_last_record_are_not_the_last_words() -> None:
    found = diagnose(evidence_from("UserWarning: No module named 'pynvml'\n" + DENOISING, 1), A_PLAN)
    assert (found.failure, found.signature) == (Failure.FRAMEWORK, "")


def test_the_same_last_words_at_the_same_step_are_the_same_failure() -> None:
    one, two, later = (
        diagnose(evidence_from(DENOISING + more, 1), A_PLAN)
        for more in ("oops at 0x7f00", "oops at 0x8a11", " 67%|6  | 2/3 [00:18<00:09,  9.02s/it]\noops at 0x7f00")
    )
    assert one.signature == two.signature != later.signature


@pytest.mark.parametrize(
    "before", ["Exception ignored in: <function X.__del__ at 0x7f>", "Error in atexit._run_exitfuncs:"]
)
def test_a_traceback_that_ended_nothing_is_not_the_cause(before: str) -> None:
    log = DENOISING + TRACEBACK.format("KeyError: 'a.weight'") + f"{before}\n" + TRACEBACK.format("ImportError: x")
    found = diagnose(evidence_from(log, 1), A_PLAN)
    assert (found.cause, found.evidence) == ("keys", ("KeyError: 'a.weight'",))


def test_what_was_said_long_before_a_process_was_killed_is_not_the_cause_and_no_source_is_evidence() -> None:
    log = TRACEBACK.format("ModuleNotFoundError: No module named 'triton'") + DENOISING
    found = diagnose(evidence_from(log, -signal.SIGKILL), A_PLAN)
    assert found.failure is Failure.CRASH
    assert not [line for line in found.evidence if "run(model)" in line]


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGTERM, "asked it to end"),
        (signal.SIGXCPU, "ulimit"),
        (signal.SIGFPE, "cublas"),
        (signal.SIGSEGV, "driver"),
    ],
)
def test_the_advice_fits_the_signal(number: int, word: str) -> None:
    assert word in diagnose(Evidence(signal_number=number), A_PLAN).advice


def test_a_library_that_nccl_can_do_without_is_not_the_cause() -> None:
    noise = "box:4163 [0] misc/cudawrap.cc:179 NCCL WARN Failed to find CUDA library libcuda.so: cannot open shared object file\n"
    cause = "box:4163 [0] transport/p2p.cc:238 NCCL WARN failed to open CUDA IPC handle : 217 peer access is not supported\n"
    log = (
        noise
        + cause
        + TRACEBACK.format("torch.distributed.DistBackendError: NCCL error in: x.cpp:784, unhandled cuda error")
    )
    assert diagnose(evidence_from(log, 1), A_PLAN).cause == "peer-access"


ELASTIC = (
    "[rank1]: ValueError: the real cause",
    "[rank0]: what rank 0 says",
    "W1123 09:49:09.8 14185 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 1 closing signal",
    "Traceback (most recent call last):",
    '  File "/venv/lib/python3.11/site-packages/torch/distributed/run.py", line 991, in <module>',
    "    main()",
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
    "=" * 60,
    "generate.py FAILED",
    "Root Cause (first observed failure):",
    "  rank      : 1 (local_rank: 1)",
)


def test_the_evidence_is_the_first_failing_ranks_own_words_and_not_torchruns() -> None:
    evidence = Evidence(exit_status=1, tail=ELASTIC, rank_errors=(RankError(1, exit_status=1),))
    assert diagnose(evidence, A_PLAN).evidence == ("[rank1]: ValueError: the real cause",)


@pytest.mark.parametrize("name", ["oom_dit_two_ranks", "rank1_killed", "unknown_flag_two_ranks"])
def test_no_evidence_of_a_real_run_is_torchruns_boilerplate(name: str) -> None:
    found = diagnose(evidence_of(f"wan21_real_{name}.txt"), A_PLAN)
    assert found.evidence
    assert not [line for line in found.evidence if "elastic" in line or "Root Cause" in line or "=====" in line]


def test_what_the_older_torchrun_says_after_an_exception_is_not_a_part_of_it() -> None:
    log = (
        TRACEBACK.format("KeyError: 'a.weight'")
        + "ERROR:torch.distributed.elastic.multiprocessing.api:failed (exitcode: 1)\n"
    )
    assert diagnose(evidence_from(log, 1), A_PLAN).evidence == ("KeyError: 'a.weight'",)


def test_the_signature_of_a_failure_leaves_out_what_differs_between_runs() -> None:
    where = '  File "/x/a.py", line 7, in f\n    code()'
    one, two = (
        diagnose(Evidence(exit_status=1, exceptions=(ExceptionSeen(f"ValueError: at {text}", where),)), A_PLAN)
        for text in ("0x7f00 in /tmp/a/film.mp4 (frame 12)", "0x8a11 in /var/b/film.mp4 (frame 7)")
    )
    assert one.signature == two.signature != ""
    other = ExceptionSeen("ValueError: at 0x7f00 in /tmp/attempt-1/film.mp4", where.replace("line 7", "line 8"))
    assert diagnose(Evidence(exit_status=1, exceptions=(other,)), A_PLAN).signature != one.signature


@pytest.mark.parametrize(
    ("phase", "step", "sampling"),
    [("loading transformer", 0, False), ("denoising", 0, True), ("denoising", 50, False), ("decoding", 50, False)],
)
def test_sampling_is_while_the_steps_are_computed(phase: str, step: int, sampling: bool) -> None:
    found = diagnose(Evidence(exit_status=3, phase=phase, step=step, total_steps=50), A_PLAN)
    assert found.sampling is sampling


ALLOCATOR = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 5.20 GiB. GPU 0 has a total capacity of 79.15 GiB of "
    "which 3.12 GiB is free. Process 77 has {others} GiB memory in use. Including non-PyTorch memory, this process has "
    "{own} GiB memory in use."
)


@pytest.mark.parametrize(("others", "own", "crowded"), [("30.00", "46.03", True), ("0.00", "76.03", False)])
def test_a_card_that_others_have_filled_meanwhile_is_crowded(others: str, own: str, crowded: bool) -> None:
    text = ALLOCATOR.format(others=others, own=own)
    evidence = Evidence(exit_status=1, exceptions=(ExceptionSeen(text),), planned_used_bytes=1024**3)
    found = diagnose(evidence, A_PLAN)
    assert found.crowded is crowded
    assert ("other programs hold 30.0 GiB" in found.message) is crowded


def test_a_bus_error_with_a_full_shared_memory_is_named_as_that() -> None:
    full = diagnose(Evidence(signal_number=signal.SIGBUS, shm_free_bytes=1 << 20), A_PLAN)
    assert (full.failure, full.cause) == (Failure.ENV, "shm")
    assert "--shm-size" in full.advice
    assert diagnose(Evidence(signal_number=signal.SIGBUS, shm_free_bytes=1 << 33), A_PLAN).failure is Failure.CRASH


def test_a_bus_error_where_shared_memory_is_small_is_named_even_when_its_segments_are_gone() -> None:
    small = Evidence(signal_number=signal.SIGBUS, shm_free_bytes=64 * 2**20, shm_total_bytes=64 * 2**20)
    found = diagnose(small, A_PLAN)
    assert (found.failure, found.cause) == (Failure.ENV, "shm")
    assert "64 MiB in all" in found.message
    other = Evidence(signal_number=signal.SIGSEGV, shm_free_bytes=64 * 2**20, shm_total_bytes=64 * 2**20)
    assert diagnose(other, A_PLAN).failure is Failure.CRASH


@pytest.mark.parametrize(
    "line", ["SyntaxError: invalid syntax", "  what():  CUDA error: device kernel image is invalid"]
)
def test_last_words_without_a_traceback_count(line: str) -> None:
    assert diagnose(Evidence(exit_status=1, tail=("  File 'x'", line)), A_PLAN).failure is Failure.ENV


@pytest.mark.parametrize("reason", ["timeout", "hang"])
def test_the_evidence_of_a_run_that_we_ended_is_not_torchruns_words_either(reason: Any) -> None:
    found = diagnose(Evidence(kill_reason=reason, signal_number=15, tail=ELASTIC), A_PLAN)
    assert found.evidence
    assert not [line for line in found.evidence if "Root Cause" in line or "====" in line or "elastic" in line]


def test_a_rank_that_torchrun_ended_is_not_the_one_that_failed() -> None:
    ranks = (RankError(0, exit_status=-signal.SIGTERM), RankError(1, exit_status=-signal.SIGSEGV))
    found = diagnose(Evidence(exit_status=1, rank_errors=ranks), A_PLAN)
    assert (found.failure, found.cause) == (Failure.CRASH, "SIGSEGV")


def seen(**values: Any) -> Failure:
    return diagnose(Evidence(**values), A_PLAN).failure


OOM, NCCL = (
    ExceptionSeen("torch.OutOfMemoryError: CUDA out of memory", rank=1),
    ExceptionSeen("x: NCCL error in: y", rank=0),
)
ORDER = [
    (
        "p04 the kernel's counter distinguishes SIGKILL from out of memory",
        {"signal_number": 9, "oom_kills": 1},
        Failure.OOM_HOST,
    ),
    ("p05 SIGKILL alone is a crash", {"signal_number": 9, "oom_kills": 0}, Failure.CRASH),
    ("p05 so it is when nobody could be asked", {"signal_number": 9}, Failure.CRASH),
    ("p06 SIGSEGV", {"signal_number": 11}, Failure.CRASH),
    ("p06 SIGFPE", {"signal_number": 8}, Failure.CRASH),
    ("p06 a shell's 139", {"exit_status": 139}, Failure.CRASH),
    ("p07 our own hang", {"kill_reason": "hang", "signal_number": 15}, Failure.HANG),
    ("p08 our own time limit", {"kill_reason": "timeout", "signal_number": 9, "oom_kills": 1}, Failure.TIMEOUT),
    ("cancelled outranks what it did", {"kill_reason": "cancelled", "exceptions": (OOM,)}, Failure.CANCELLED),
    ("p25 out of memory outranks NCCL", {"exit_status": 1, "exceptions": (NCCL, OOM)}, Failure.OOM_GPU),
    (
        "p25 a killed rank outranks what the others said",
        {
            "exit_status": 1,
            "exceptions": (NCCL,),
            "rank_errors": (RankError(1, exit_status=-9), RankError(0, exit_status=-15)),
        },
        Failure.CRASH,
    ),
    (
        "p04 the same under torchrun",
        {"exit_status": 1, "rank_errors": (RankError(1, exit_status=-9),), "oom_kills": 2},
        Failure.OOM_HOST,
    ),
    (
        "p28 usage under torchrun",
        {"exit_status": 1, "rank_errors": (RankError(0, exit_status=2),)},
        Failure.CONFIG,
    ),
    ("p28 usage alone", {"exit_status": 2}, Failure.CONFIG),
    ("p30 no such interpreter", {"start_errno": errno.ENOENT}, Failure.ENV),
    ("p30 no more processes", {"start_errno": errno.EAGAIN}, Failure.ENV),
    ("p23 unkillable", {"kill_reason": "timeout", "unkillable": (7,)}, Failure.HANG),
    ("p09 no film", {"exit_status": 0}, Failure.OUTPUT),
    ("p09 no film on a full disk", {"exit_status": 0, "disk_free_bytes": 4096}, Failure.DISK),
    ("p09 no film: disk in the log", {"exit_status": 0, "tail": ("av: No space left on device",)}, Failure.DISK),
    ("p09 no film: no ffmpeg", {"exit_status": 0, "writer_problem": "no ffmpeg"}, Failure.ENV),
    ("p10 a damaged film", {"exit_status": 0, "output_exists": True, "output_problem": "cut"}, Failure.OUTPUT),
    ("p13 a failure with a film is a failure", {"exit_status": 1, "output_exists": True}, Failure.FRAMEWORK),
]


@pytest.mark.parametrize(("values", "failure"), [row[1:] for row in ORDER], ids=[row[0] for row in ORDER])
def test_evidence_counts_in_this_order(values: dict[str, Any], failure: Failure) -> None:
    assert seen(**values) is failure


def test_an_inline_engines_error_stays_what_it_is() -> None:
    assert seen(error=InvalidInputError("x", failure=Failure.EXISTS)) is Failure.EXISTS


@pytest.mark.parametrize("failure", [Failure.OOM_GPU])
def test_advice_against_gpu_memory_never_recommends_steps_or_fewer_gpus(failure: Failure) -> None:
    advice = diagnose(Evidence(exit_status=1, exceptions=(OOM,)), A_PLAN).advice
    assert "do not change peak memory" in advice
    assert "more --gpus" in advice


def test_every_signal_has_a_name_in_the_message() -> None:
    found = diagnose(Evidence(signal_number=signal.SIGBUS, phase="denoising", step=3, total_steps=50), A_PLAN)
    assert "SIGBUS" in found.message
    assert "step 3 of 50" in found.message


@pytest.mark.parametrize(
    "text", ["RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB", "ModuleNotFoundError: No module named 'x'"]
)
def test_an_exception_that_the_program_survived_does_not_explain_its_bad_film(text: str) -> None:
    seen = (ExceptionSeen(text),)
    ended = Evidence(exit_status=0, exceptions=seen, tail=(text,), output_problem="it has 3 frames", output_exists=True)
    assert (diagnose(ended, A_PLAN).failure, diagnose(ended, A_PLAN).message) == (Failure.OUTPUT, "it has 3 frames")


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.EAGAIN, "start-transient"), (errno.ENOMEM, "start-transient"), (errno.EMFILE, "start-transient"),
     (errno.ENFILE, "start-transient"), (errno.ENOENT, "start"), (errno.EACCES, "start")],
)  # fmt: skip
def test_a_program_that_cannot_be_started_for_a_lack_of_something_may_start_later(number: int, cause: str) -> None:
    assert diagnose(Evidence(start_errno=number), A_PLAN).cause == cause


CORRUPT, NUMPY = "SafetensorError: Error while deserializing header", "RuntimeError: Numpy is not available"
NCCL_ERROR = "torch.distributed.DistBackendError: NCCL error in: ../ProcessGroupNCCL.cpp"
CHILD_FAILED = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: "


@pytest.mark.parametrize(
    ("evidence", "failure"),
    [
        # NCCL's watchdog ends its own rank by SIGABRT; a rank that was killed otherwise explains what the others say.
        (Evidence(rank_errors=(RankError(0, exit_status=-6),), exceptions=(ExceptionSeen(NCCL_ERROR),)), Failure.NCCL),
        (Evidence(rank_errors=(RankError(0, exit_status=-9),), exceptions=(ExceptionSeen(NCCL_ERROR),)), Failure.CRASH),
        (Evidence(exit_status=1, rank_errors=(RankError(1, exit_status=1, message=CORRUPT),)), Failure.MODEL),
        (
            Evidence(
                exit_status=1,
                rank_errors=(RankError(1, exit_status=1),),
                exceptions=(ExceptionSeen(NUMPY, rank=0), ExceptionSeen(CORRUPT, rank=1)),
            ),
            Failure.MODEL,
        ),
        (
            Evidence(exit_status=1, rank_errors=(RankError(0, exit_status=1), RankError(1, exit_status=-9))),
            Failure.FRAMEWORK,
        ),
        (Evidence(exit_status=137), Failure.CRASH),
        (Evidence(signal_number=signal.SIGSEGV, oom_kills=1), Failure.CRASH),
        (Evidence(signal_number=signal.SIGKILL, oom_kills=1), Failure.OOM_HOST),
        # A log that does not distinguish ranks: the first is the cause.
        (
            Evidence(
                exit_status=1,
                rank_errors=(RankError(1, exit_status=1),),
                exceptions=(ExceptionSeen(CORRUPT), ExceptionSeen(NUMPY)),
            ),
            Failure.MODEL,
        ),
    ],
)
def test_of_what_several_ranks_say_the_first_failing_ones_counts(evidence: Evidence, failure: Failure) -> None:
    assert diagnose(evidence, A_PLAN).failure is failure


def test_torchruns_own_exception_is_not_the_frameworks() -> None:
    seen = (ExceptionSeen("ZeroDivisionError: division by zero"), ExceptionSeen(CHILD_FAILED))
    assert "ZeroDivisionError" in diagnose(Evidence(exit_status=1, exceptions=seen), A_PLAN).message
