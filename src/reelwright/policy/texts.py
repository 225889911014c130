"""A table of known failures: the texts that prove each, in the frameworks' own words, and the advice for the user.

The texts come from the source of torch, NCCL, transformers, diffusers, flash-attn and the frameworks, from issue
threads, and from runs of the real code (tests/logs). `diagnosis` matches them; the order of the rows counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import Failure
from . import GPU_FAULT

_DOWNLOAD = "Download the named file again; `reel doctor` checks the whole folder in a second."
MEMORY_ADVICE = (
    "Use a smaller --size, fewer --frames or more --gpus (with FSDP), or let a retry do it: --allow-degrade "
    "frames,size. Fewer steps and a lower guidance scale do not change peak memory, and fewer GPUs raise it."
)
SHM_ADVICE = (
    "The processes of one run exchange data through /dev/shm. In a container, start it with --ipc=host or "
    "--shm-size=8g; elsewhere remove what fills it (`ls -l /dev/shm`)."
)
#: The usual size in NCCL's error: "Error while creating shared memory segment /dev/shm/nccl-… (size 33030528)".
SHM_SEGMENT_BYTES = 33_030_528

#: A container has 64 MiB of /dev/shm unless it was started with more. Segments disappear with their processes, so free
#: space at the end does not rule out a shortage.
SHM_SMALL_BYTES = 128 * 1024**2


@dataclass(frozen=True)
class KnownFailure:
    """One known failure: its class, a finer cause, the texts that prove it, and the advice for the user."""

    failure: Failure
    cause: str
    pattern: str
    advice: str


#: GPU memory outranks every other cause: one rank's out-of-memory appears as NCCL timeouts in the others. A failed
#: allocation appears as the allocator's assertions if the driver does not answer or expandable segments are on.
OUT_OF_MEMORY = KnownFailure(
    Failure.OOM_GPU,
    "",
    r"(?:torch\.|torch\.cuda\.)?OutOfMemoryError: |(?:CUDA|HIP|XPU|MPS)(?: backend)? out of memory|(?:CUDA|HIP)(?: driver)? error: out of memory"
    r"|cuda runtime error \(2\)|cudaMalloc\w* fail\w*:? out of memory|Unable to find a valid cuDNN algorithm|DEVICE_ALLOCATION_FAILED"
    r"|CU(?:BLAS|DNN|SOLVER|SPARSE|FFT)_STATUS_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED|CUDNN_STATUS_NOT_INITIALIZED"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory|Triton Error \[CUDA\]: out of memory"
    r"|Cuda failure (?:\d+ )?'out of memory'|Failed to CUDA (?:calloc|malloc)"
    r"|(?:NVML_SUCCESS == r|handles_\.at\(\w+\)).{0,40}INTERNAL ASSERT FAILED|INTERNAL ASSERT FAILED at .{0,200}CUDACachingAllocator",
    MEMORY_ADVICE,
)
#: The order counts: the first row that matches a text gives the cause.
KNOWN_FAILURES = (
    KnownFailure(Failure.CRASH, GPU_FAULT,
        r"CUDA error: (?:an illegal (?:memory access|instruction)|unspecified launch failure|device-side assert|uncorrectable"
        r"|misaligned address|hardware stack error|invalid program counter|the launch timed out|unknown error)"
        r"|CU(?:BLAS|DNN)_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
        r"|uncorrectable ECC error|Memory access fault by GPU|\bXid\b.*\d|GPU has fallen off the bus|device-side assert triggered",
        "The GPU or its driver failed. Look at `dmesg` for Xid lines; try another card; update the driver."),
    KnownFailure(Failure.ENV, "shm",
        r"unable to open shared memory object|Error while (?:creating|attaching to) shared memory segment|failed to extend /dev/shm"
        r"|/dev/shm\S*.{0,80}No space left|No space left.{0,80}/dev/shm|unable to (?:write to|mmap|resize|allocate).{0,40}torch_\d+"
        r"|insufficient shared memory|workers are out of shared memory|shared memory ?\(shm\)|Call to (?:posix_fallocate|ftruncate).{0,60}failed",
        SHM_ADVICE),
    KnownFailure(Failure.ENV, "flash-attn-card",
        r"FlashAttention(?:-\d)? only supports? (?:Ampere|Ada|Hopper|Turing)|FlashAttention backward for head dim"
        r"|flash_attn.{0,80}(?:compute capability|requires? (?:Ampere|Hopper))|requires? compute capability (?:>=? ?)?[89]",
        "This card is too old for the attention package that is installed: set `attention: sdpa`."),
    KnownFailure(Failure.ENV, "card",
        r"no kernel image is available|device kernel image is invalid|is not compatible with the current PyTorch installation"
        r"|CUBLAS_STATUS_ARCH_MISMATCH|CUDNN_STATUS_ARCH_MISMATCH|unsupported gpu architecture|sm_\d+'? is not (?:supported|defined)|[Uu]nsupported CUDA arch|SM\d+ kernel is not available"
        r"|(?:CUDA|HIP) error: invalid device function|No available kernel\. Aborting|out of resource: shared memory",
        "The installed torch (or an extension such as flash-attn) was not built for this card: install a build whose "
        "architectures include it. `reel doctor` names both."),
    KnownFailure(Failure.ENV, "precision",
        r"not implemented for '(?:BFloat16|Half|Float8_\w+)'|[Bb](?:float|F)16 is (?:only supported|not supported)"
        r"|unsupported ScalarType (?:BFloat16|Float8)|(?:does not|doesn't) support (?:bfloat16|bf16|fp8)"
        r"|_scaled_mm is only supported|fp8\w* not supported in this arch|requires \.target sm_\d+|CUBLAS_STATUS_NOT_SUPPORTED"
        r"|only supported on GPUs with compute capability",
        "This card or this torch cannot compute in that number format: use a card of the Ampere generation or newer."),
    KnownFailure(Failure.ENV, "flash-attn",
        r"FLASH_ATTN_2_AVAILABLE|FLASH_ATTN_3_AVAILABLE|No module named 'flash_attn|flash_attn.*undefined symbol"
        r"|undefined symbol.*flash_attn|FlashAttention\S* (?:has been toggled on|is only supported on CUDA)|name 'flash_attn\w*' is not defined"
        r"|[Ff]lash[ -]?[Aa]ttention\S* (?:is not (?:available|installed)|version [<>=])|^ImportError: .*flash_attn\S*\.so"
        r"|flash attention build does not support|FlashAttention forward only supports head|No operator found for `memory_efficient_attention"
        r"|Flash ?Attention\S*(?: 2)? only supports? (?:torch\.float16|fp16)",
        "Install a flash-attn wheel that fits this torch, CUDA and Python, or set `attention: sdpa`."),
    KnownFailure(Failure.ENV, "xfuser",
        r"No module named 'xfuser|requires xfuser package|not use the latest yunchang|Attempted to reuse key: 'SAGE_FP16"
        r"|No module named 'torch\.distributed\.tensor\.experimental'|No module named 'yunchang|this xfuser cannot compute",
        "Several GPUs need xfuser in a version that fits this torch: install it, or use one GPU."),
    KnownFailure(Failure.ENV, "launcher", r"^(?:wan21|hunyuan)\.py: error: ",  # launchers/: a refusal before anything is loaded
        "This version of Reelwright does not know this checkout; `reel doctor` shows which version it is."),
    KnownFailure(Failure.ENV, "driver",
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old|unsupported toolchain"
        r"|unsupported display driver / cuda driver combination|CUDA_ERROR_(?:SYSTEM_DRIVER_MISMATCH|UNSUPPORTED_PTX)"
        r"|forward compatibility was attempted|CUDA driver initialization failed"
        r"|Driver/library version mismatch",
        "The driver is older than the CUDA version of this torch needs, or was updated without a reboot: update the "
        "driver (and reboot), or install a torch built for an older CUDA."),
    KnownFailure(Failure.ENV, "cudnn",
        r"CUDNN_STATUS_(?:NOT_SUPPORTED|VERSION_MISMATCH|SUBLIBRARY)|unable to find an engine to execute this computation"
        r"|No execution plans support the graph|Could not load library libcudnn|libcudnn\S*: cannot open shared object",
        "This cuDNN does not support this card with this torch, or torch was built for another cuDNN: reinstall torch "
        "with its own cuDNN, and remove others from LD_LIBRARY_PATH."),
    KnownFailure(Failure.ENV, "cuda-libraries",
        r"CUBLAS_STATUS_(?:INVALID_VALUE|NOT_FOUND)|CUFFT_(?:INTERNAL_ERROR|INVALID_DEVICE)|nvrtc: error|NVRTC_ERROR|libnvrtc-\S*"
        r"|(?:libcublas|libcudart|libcufft|libcusparse|libnvJitLink|libnccl)\S*: (?:cannot open shared object|undefined symbol)|__nvJitLink",
        "The loaded CUDA libraries are not the ones that this torch was built with: remove others from "
        "LD_LIBRARY_PATH, or reinstall torch with its own nvidia-* packages."),
    KnownFailure(Failure.ENV, "duplicate-gpu", r"Duplicate GPU detected",
        "Two processes of the run were given the same GPU: let `gpus` name each card once, and look at CUDA_VISIBLE_DEVICES."),
    KnownFailure(Failure.ENV, "no-gpu",
        r"Found no NVIDIA driver|Torch not compiled with CUDA enabled|[Nn]o (?:CUDA|HIP|XPU) GPUs are available|[Nn]o CUDA-capable device"
        r"|invalid device ordinal|CUDA unknown error|CUDA error: (?:initialization error|system not yet initialized)|CUDA-capable device\(s\) is/are busy or unavailable"
        r"|Attempting to deserialize object on a? ?CUDA device|Unexpected error from cudaGetDeviceCount|device < num_gpus",
        "`reel doctor` shows what the driver and the framework's torch see."),
    KnownFailure(Failure.ENV, "transformers",
        r"[Ii]mage features and image tokens do not match|The number of image tokens is|does not recognize this architecture|Unrecognized model in "
        r"|Unrecognized configuration class|Tokenizer class \w+ does not exist|module '?(?:transformers|diffusers)\S* has no attribute"
        r"|cannot import name '\w+' from '(?:transformers|diffusers|tokenizers|huggingface_hub)|KeyError: '(?:llava|qwen|umt5|mistral|llama|siglip|glm)\w*'"
        r"|Cannot instantiate this tokenizer from a slow version|Couldn't instantiate the backend tokenizer"
        r"|requires the (?:SentencePiece|protobuf|tiktoken)\S* library|got an unexpected keyword argument '(?:trust_remote_code|torch_dtype|dtype|attn_implementation|num_additional_image_tokens|patch_size)'",
        "transformers, diffusers or a tokenizer package (sentencepiece, protobuf) is missing, or its version does not "
        "match this checkout: install the versions that its requirements.txt names. `reel doctor` compares them."),
    KnownFailure(Failure.ENV, "numpy",
        r"numpy\.(?:dtype|ndarray) size changed|_ARRAY_API not found|numpy\.\S*multiarray failed to import|compiled using NumPy 1\.x cannot be run in|Numpy is not available"
        r"|compiled against (?:ABI|API) version|was removed in the NumPy 2|module 'numpy' has no attribute",
        "numpy and the packages built against it do not match: install the numpy version that the checkout's "
        "requirements.txt names (most need numpy below 2)."),
    KnownFailure(Failure.ENV, "user", r"getpwuid\(\): uid not found|No username set in the environment",
        "This user has no name on this machine, as in a container that was started with --user, and torch needs one: set "
        "USER in `env`."),
    KnownFailure(Failure.MODEL, "remote-code", r"`trust_remote_code(?:=True)?`|requires you to execute the|contains custom code which must be executed",
        "These weights need their own code to run, and Reelwright does not allow that: use the weights that the "
        "checkout's README names, and the versions of its requirements.txt."),
    KnownFailure(Failure.ENV, "compiler",
        r"Failed to find C compiler|Python\.h: No such file|BackendCompilerFailed|working triton installation|\S*CompilationError: "
        r"|CalledProcessError: Command '\['\S*(?:gcc|g\+\+|cc|clang|ninja|nvcc|ptxas)'|torch\._(?:inductor|dynamo)\.exc\.|[Nn]inja is required|nvcc.{0,20}(?:not found|No such file)|No such file or directory: '\S*(?:nvcc|gcc|g\+\+|ptxas|ninja)'"
        r"|CUDA_HOME environment variable is not set",
        "A package compiles code at run time, and the compiler or its headers are missing, or triton does not match "
        "this torch: install gcc, the Python headers and the triton version that torch needs, or switch compilation "
        "off (`compile: false`)."),
    KnownFailure(Failure.MODEL, "pickle", r"Unsupported (?:global|class)|was not an allowed global",
        "The file holds more than weights, and loading it could run its code: get the weights from the model's own page."),
    KnownFailure(Failure.MODEL, "keys",
        r"Error\(s\) in loading state_dict|size mismatch for |(?:Missing|Unexpected) key\(s\) in state_dict"
        r"|because the following keys are missing|KeyError: '(?:module|model_state_dict|state_dict|ema)'"
        r"|KeyError: '\S*\.(?:weight|bias)'",
        "The weights are complete but belong to another model, task or version: check which folder the setting names. "
        "Downloading them again gives the same file."),
    KnownFailure(Failure.MODEL, "corrupt",
        r"Error while deserializing|Invalid magic number; corrupt file|is not a valid JSON file|JSONDecodeError|HeaderTooLarge|HeaderTooSmall|InvalidHeaderDeserialization"
        r"|MetadataIncompleteBuffer|incomplete metadata|header too large|PytorchStreamReader failed"
        r"|invalid load key|UnpicklingError|^EOFError|unexpected EOF, expected|checkpoint.*corrupt|sentencepiece_processor\.cc",
        _DOWNLOAD),
    KnownFailure(Failure.MODEL, "missing",
        r"No such file or directory: .*(?:models_t5|models_clip|VAE|\.(?:pth|pt|bin|model|safetensors|json)\b|tokenizer|ckpt)"
        r"|does not appear to have (?:a file|files) named|model_path not exists|`models_root` not exists|VAE checkpoint not found|Error no file named|HFValidationError"
        r"|(?:Incorrect path_or_model_id|is not a local folder and is not a valid model|outgoing traffic has been disabled)"
        r"|LocalEntryNotFoundError|OfflineModeIsEnabled|(?:[Cc]ouldn't|[Cc]an't) (?:connect to|load) .*(?:huggingface|tokenizer|processor|config)"
        r"|HTTPSConnectionPool\(host='|Max retries exceeded with url|^httpx?\S*\.Connect\w+: |urlopen error|gaierror: |Unable to load (?:vocabulary|weights) from"
        r"|^TypeError: not a string$|chat_template is not set"  # sentencepiece, when the tokenizer's folder has no spiece.model
        r"|GatedRepoError|RepositoryNotFoundError|Cannot access gated repo|(?:401|403) Client Error.*(?:huggingface|hf\.co)",
        "The folder of weights is incomplete (the framework tries to download a missing file), or it is a -Diffusers "
        "download. `reel doctor` names what is missing."),
    # Reelwright read the user's picture before the run; the framework opens a copy that Reelwright wrote.
    KnownFailure(Failure.ENV, "image",
        r"UnidentifiedImageError|cannot identify image file|No such file or directory: .*\.(?:png|PNG|jpe?g|JPE?G|webp)\b"
        r"|image file is truncated|broken data stream|broken PNG file|DecompressionBombError",
        "The framework could not read its copy of the picture, which was intact when the run began: something removed or changed "
        "the run's private folder (.reelwright-...), or pillow in the framework's environment is broken."),
    KnownFailure(Failure.CRASH, "signal", r"SignalException: Process \d+ got signal|^KeyboardInterrupt",
        "Something outside Reelwright sent the framework a signal."),
    KnownFailure(Failure.PORT, "port",
        r"EADDRINUSE|[Aa]ddress already in use|server socket has failed to listen",
        "Another program took the port before the run used it."),
    KnownFailure(Failure.CONFIG, "arguments",
        r"error: argument |error: unrecognized arguments|error: the following arguments|error: ambiguous option"
        r"|Unsupport size|Unsupport task|Unsupport frame_num|cannot be divided evenly|should be equal to the world size"
        r"|not supported in non-distributed environments|Please specify the checkpoint directory"
        r"|number of GPUs should be equal|Cannot enable use_cpu_offload in the distributed|Invalid Head size",
        "The framework refused its options: the checkout may be another version. `reel doctor` shows which."),
    KnownFailure(Failure.CONFIG, "shape",
        r"Sizes of tensors must match except in dimension 0\. Expected size 21|is invalid for input of size"
        r"|Cannot split video sequence|The (?:expanded )?size of (?:the )?tensor (?:a )?\(\d+\) must match|must be a multiple of 4|Please set ALLOW_RESIZE_FOR_SP",
        "This number of frames or size does not fit the model or the number of GPUs."),
    KnownFailure(Failure.MODEL, "task", r"to have \d+ channels, but got \d+ channels|mat1 and mat2 shapes cannot be multiplied",
        "The weights do not match the shape of their input: they belong to another task or version, or one part of "
        "the folder is another model's. Check which folder the settings name."),
    KnownFailure(Failure.CONFIG, "parts",
        r"[Ee]xpected all tensors to be on the same device|must have the same dtype|need to be on the same GPU|must be on (?:the same device|CUDA)|expected scalar type \w+ but"
        r"|Input type \(.*\) and (?:weight|bias) type|Cannot copy out of meta tensor",
        "Parts of the model are on different devices or in different number formats: switch off offloading or `t5_cpu`, "
        "and compare the versions of the packages with the checkout's requirements.txt (`reel doctor` does)."),
    KnownFailure(Failure.INPUT, "name", r"File name too long|Errno 36\]",
        "A name is longer than the file system allows: choose a shorter output name or folder."),
    KnownFailure(Failure.DISK, "space", r"No space left on device|ENOSPC|Disk quota exceeded",
        "Free some space, then run the same command again."),
    KnownFailure(Failure.PERM, "rights", r"^PermissionError|Errno 13\]|Permission denied|Read-only file system",
        "The framework may not read or write that file: change its permissions, or choose a folder that you can write to."),
    KnownFailure(Failure.OOM_HOST, "allocation", r"DefaultCPUAllocator: (?:can't|not enough)|std::bad_alloc|HOST_ALLOCATION_FAILED|Cannot allocate memory|MemoryError",
        "Host memory ran out: use fewer GPUs (each rank loads the whole model) or add memory or swap."),
    KnownFailure(Failure.ENV, "limits", r"Too many open files|Resource temporarily unavailable|can't start new thread",
        "The run reached a limit of the system: raise it (`ulimit -n`, `ulimit -u`) and run the command again."),
    KnownFailure(Failure.ENV, "library", r"cannot open shared object file|version `(?:GLIBC|GLIBCXX|CXXABI)_\S+' not found",
        "A library of the operating system is missing or too old for this package: install the system's package that holds it "
        "(libGL.so.1 is in libgl1), or a build of the package for this system."),
    KnownFailure(Failure.ENV, "import",
        r"No module named |ImportError: |undefined symbol|operator torchvision::nms does not exist|can't open file '\S+\.py'",
        "The framework's environment is not complete: install its requirements, or set `python` to the right interpreter."),
    KnownFailure(Failure.ENV, "writer", r"No ffmpeg exe could be found|No such file or directory: '\S*ffmpeg\S*'|Could not find a backend to open",
        "The framework writes videos through imageio-ffmpeg: install it in the framework's environment."),
    KnownFailure(Failure.ENV, "versions",
        r"^TypeError: .*(?:unexpected keyword argument|missing \d+ required|takes .{1,40} positional argument)"
        r"|^AttributeError: (?:module|type object|'(?!NoneType)\w+' object) .*has no attribute|^NameError: "
        r"|^(?:Syntax|Indentation|Tab)Error: |Could not run '\S+' with arguments from the 'CUDA' backend"
        r"|compiled with different CUDA|require users to upgrade torch|unsupported operand type\(s\) for \||'type' object is not subscriptable"
        r"|is required for a normal functioning of this module",
        "The checkout's code and its packages do not match, so a retry would fail the same way: update the "
        "checkout, or install the versions that its requirements.txt names. `reel doctor` compares them."),
    KnownFailure(Failure.NCCL, "peer-access", r"peer access is not supported|peer mapping resources exhausted",
        "These cards cannot reach each other's memory: allow `nccl_p2p_retry`, set NCCL_P2P_DISABLE=1 in `env`, or use one GPU."),
    KnownFailure(Failure.NCCL, "rendezvous", r"client socket has timed out|Rendezvous(?:Connection|Timeout)Error",
        "The processes of the run did not find each other at 127.0.0.1: look at the firewall and at the loopback interface "
        "(`ip addr show lo`), or use one GPU."),
    KnownFailure(Failure.NCCL, "nccl",
        r"Watchdog caught collective operation timeout|DistBackendError|NCCL [Ee]rror|unhandled (?:cuda|system) error"
        r"|ncclInternalError|ncclSystemError|ncclUnhandledCudaError|Connection closed by peer|DistNetworkError|DistStoreError"
        r"|Heartbeat monitor timed out|watchdog got stuck",
        "Communication between the GPUs failed. Run with NCCL_DEBUG=INFO; allow nccl_p2p_retry; or use one GPU."),
)  # fmt: skip
