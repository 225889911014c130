import torch
from . import functional


class InterpolationMode:
    BICUBIC = "bicubic"
    BILINEAR = "bilinear"


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms


class Resize:
    def __init__(self, *a, **k):
        pass


class ToTensor:
    pass


class Normalize:
    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def __call__(self, x):
        return (x - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)
