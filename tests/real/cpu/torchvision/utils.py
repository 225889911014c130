def make_grid(t, nrow=8, normalize=False, value_range=None):
    """One picture [1,3,H,W] -> [3,H,W], values to 0..1: all that is asked of it here."""
    lo, hi = value_range
    assert t.shape[0] == 1
    return (t[0].clamp(lo, hi) - lo) / (hi - lo)


def save_image(*a, **k):
    raise NotImplementedError
