"""Lets the REAL Wan2.1 generate.py run on a CPU with tiny models, in the venv that setup.sh makes.

Nothing of Wan is copied: torch's CUDA entry points are bent to the CPU, and after Wan's own modules are imported their
model *sizes* are shrunk and flash attention is replaced by a cheap mean. Parsing, checks, sampling loop, log lines, bars,
saving and exit status are the real code's. Fault knobs: WAN_SHIM_OOM_AT=load|vae|stepN (with WAN_SHIM_OOM_TIMES=n, counted in
WAN_SHIM_STATE), WAN_SHIM_HANG_AT=stepN, WAN_SHIM_STEP_SLEEP=s, WAN_SHIM_FAIL_SAVE=1, WAN_SHIM_RANK_DIE=rank (at step 2). WAN_SHIM_DO holds Python statements and
WAN_SHIM_DO_AT=import|load|vae|save|stepN where they are carried out.
WAN_SHIM_FRAMES=FILE keeps the frames as they go to the writer (RGB bytes), and WAN_SHIM_ATTENTION=exact computes true attention.
A runner may scrub the environment, so the knobs are also read from wan_shim_knobs.json beside this file in site-packages.
"""

import importlib.abc, importlib.machinery, os, sys

if os.environ.get("WAN_CPU_SHIM") != "0" and not getattr(sys, "_wan_shim", False):
    sys._wan_shim = True
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "wan_cpu_shim"))
    import json

    try:
        KNOBS = {
            **json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "wan_shim_knobs.json"))),
            **os.environ,
        }
    except OSError:
        KNOBS = os.environ
    TINY = dict(dim=480, ffn_dim=256, num_heads=40, num_layers=1)

    def fault(where):
        e = KNOBS
        if e.get("WAN_SHIM_OOM_AT") == where:
            import torch

            limit, path = int(e.get("WAN_SHIM_OOM_TIMES", "1000000")), e.get("WAN_SHIM_STATE", "")
            n = int(open(path).read() or 0) if path and os.path.exists(path) else 0
            if n < limit:
                if path:
                    open(path, "w").write(str(n + 1))
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 5.20 GiB. GPU 0 has a total capacity of 79.15 GiB of which 3.12 GiB is free. Including non-PyTorch memory, this process has 76.02 GiB memory in use."
                )
        if e.get("WAN_SHIM_DO_AT") == where:
            exec(e["WAN_SHIM_DO"], {})
        if e.get("WAN_SHIM_HANG_AT") == where:
            import time

            while True:
                time.sleep(3600)
        if where.startswith("step"):
            if e.get("WAN_SHIM_STEP_SLEEP"):
                import time

                time.sleep(float(e["WAN_SHIM_STEP_SLEEP"]) / 2)
            if where == "step2" and e.get("WAN_SHIM_RANK_DIE") == os.environ.get("RANK", "0"):
                import signal

                os.kill(os.getpid(), signal.SIGKILL)

    def bend_torch(torch):
        real = torch.device

        class Meta(type):
            def __instancecheck__(cls, x):
                return isinstance(x, real)

        class device(metaclass=Meta):
            def __new__(cls, *a, **k):
                if a and (isinstance(a[0], int) or str(a[0]).startswith("cuda")):
                    return real("cpu")
                return real(*a, **k)

        torch.device = device
        c = torch.cuda
        c.current_device = lambda: "cpu"
        c.set_device = lambda *a, **k: None  # three lambdas: torch refuses one object under several names
        c.empty_cache = lambda *a, **k: None
        c.synchronize = lambda *a, **k: None

        class autocast(torch.autocast):
            def __init__(self, enabled=True, dtype=torch.bfloat16, cache_enabled=True):
                half = dtype in (torch.float16, torch.bfloat16)
                super().__init__("cpu", dtype=torch.bfloat16, enabled=enabled and half)

        c.amp.autocast = autocast
        import torch.cuda.amp as amp

        amp.autocast = autocast
        import torch.distributed as dist

        init = dist.init_process_group
        dist.init_process_group = lambda backend=None, **k: init(backend="gloo", **k)
        import torch.distributed.fsdp as fsdp

        class Passthrough:
            def __new__(cls, module=None, **k):
                return module

        fsdp.FullyShardedDataParallel = Passthrough

    def after(name, m):
        import torch

        if name == "wan.configs":
            fault("import")
            for cfg in m.WAN_CONFIGS.values():
                heads = cfg.num_heads
                cfg.update(dict(TINY, num_heads=heads, dim=12 * heads))
                if "clip_dtype" in cfg:
                    cfg.clip_dtype = torch.float32  # the CPU has no mixed half layer norm
        elif name == "wan.modules.attention":

            def mean(q, k, v, **kw):
                return v.float().mean(1, keepdim=True).expand(*q.shape[:3], v.shape[-1]).to(q.dtype)

            def exact(q, k, v, q_lens=None, k_lens=None, **kw):
                out = q.new_zeros(*q.shape[:3], v.shape[-1])
                for i in range(q.shape[0]):
                    a, b = (
                        (q.shape[1] if q_lens is None else int(q_lens[i])),
                        (k.shape[1] if k_lens is None else int(k_lens[i])),
                    )
                    qi, ki, vi = (t[i, :n].transpose(0, 1).float() for t, n in ((q, a), (k, b), (v, b)))
                    out[i, :a] = (
                        torch.nn.functional.scaled_dot_product_attention(qi, ki, vi).transpose(0, 1).to(out.dtype)
                    )
                return out

            m.flash_attention = exact if KNOBS.get("WAN_SHIM_ATTENTION") == "exact" else mean
        elif name == "wan.modules.t5":
            real = m.umt5_xxl
            m.umt5_xxl = lambda **k: real(vocab_size=300, dim_attn=64, dim_ffn=64, num_heads=4, encoder_layers=1, **k)
        elif name == "wan.modules.clip":
            real = m.clip_xlm_roberta_vit_h_14
            m.clip_xlm_roberta_vit_h_14 = lambda **k: real(
                vision_layers=2,
                vision_mlp_ratio=1,
                vocab_size=300,
                text_dim=32,
                text_heads=2,
                text_layers=1,
                embed_dim=32,
                **k,
            )
        elif name == "wan.modules.vae":
            real = m._video_vae
            m._video_vae = lambda pretrained_path=None, z_dim=None, device="cpu", **k: real(
                pretrained_path, z_dim, device, dim=4, num_res_blocks=1, dim_mult=[1, 1, 1, 1], **k
            )
            dec = m.WanVAE.decode

            def decode(self, zs):
                fault("vae")
                return dec(self, zs)

            m.WanVAE.decode = decode
        elif name == "wan.modules.model":
            load, fwd = m.WanModel.from_pretrained.__func__, m.WanModel.forward

            def from_pretrained(cls, *a, **k):
                fault("load")
                return load(cls, *a, **k)

            m.WanModel.from_pretrained = classmethod(from_pretrained)
            calls = [0]

            def forward(self, *a, **k):
                calls[0] += 1
                fault("step%d" % ((calls[0] + 1) // 2))
                return fwd(self, *a, **k)

            m.WanModel.forward = forward
        elif name == "wan.distributed.xdit_context_parallel":
            usp = m.usp_dit_forward
            calls2 = [0]

            def usp_dit_forward(self, *a, **k):
                calls2[0] += 1
                fault("step%d" % ((calls2[0] + 1) // 2))
                return usp(self, *a, **k)

            m.usp_dit_forward = usp_dit_forward
        elif name == "imageio" and KNOBS.get("WAN_SHIM_FRAMES"):
            real_writer = m.get_writer

            def keeping(*a, **k):
                writer = real_writer(*a, **k)
                append = writer.append_data
                kept = open(KNOBS["WAN_SHIM_FRAMES"], "wb")

                def append_data(frame, *more):
                    kept.write(frame.tobytes())
                    kept.flush()
                    append(frame, *more)

                writer.append_data = append_data
                return writer

            m.get_writer = keeping
        elif name == "imageio" and KNOBS.get("WAN_SHIM_FAIL_SAVE"):

            def broken(*a, **k):
                raise OSError(28, "No space left on device")

            m.get_writer = broken
        elif name == "imageio" and KNOBS.get("WAN_SHIM_DO_AT") == "save":
            get_writer = m.get_writer

            def failing(*a, **k):
                fault("save")
                return get_writer(*a, **k)

            m.get_writer = failing

    WATCH = {
        "wan.configs",
        "wan.modules.attention",
        "wan.modules.t5",
        "wan.modules.clip",
        "wan.modules.vae",
        "wan.modules.model",
        "wan.distributed.xdit_context_parallel",
        "imageio",
        "torch",
    }

    class Finder(importlib.abc.MetaPathFinder):
        busy = set()

        def find_spec(self, name, path, target=None):
            if name not in WATCH or name in self.busy:
                return None
            self.busy.add(name)
            try:
                spec = importlib.machinery.PathFinder.find_spec(name, path)
            finally:
                self.busy.discard(name)
            if spec is None:
                return None
            run = spec.loader.exec_module

            def exec_module(m):
                run(m)
                (bend_torch(m) if name == "torch" else after(name, m))

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Finder())
