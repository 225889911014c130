import torch, torch.distributed as dist


class xFuserLongContextAttention:
    def __call__(self, *_, query=None, key=None, value=None, **k):
        m = value.float().mean(1, keepdim=True)
        dist.all_reduce(m)
        m /= dist.get_world_size()
        return m.expand(*query.shape[:3], value.shape[-1]).to(query.dtype)
