import numpy as np, torch


def to_tensor(img):
    return torch.from_numpy(np.asarray(img).copy()).permute(2, 0, 1).float() / 255


def center_crop(t, size):
    h, w = size
    H, W = t.shape[-2:]
    t = torch.nn.functional.pad(t, (max(0, (w - W) // 2),) * 2 + (max(0, (h - H) // 2),) * 2)
    H, W = t.shape[-2:]
    y, x = (H - h) // 2, (W - w) // 2
    return t[..., y : y + h, x : x + w]
