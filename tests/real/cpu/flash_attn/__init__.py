"""There, so that the real code takes the way of those who have it; `sitecustomize` puts a cheap mean in its place."""

__version__ = "2.8.3"


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*tensors, **options):
        raise NotImplementedError(f"{name} of the imitation of flash-attn")

    return absent
