"""Tiny random-weight models of the HunyuanVideo families; see `tiny`, which saves and names them.

What cannot be small is fixed by diffusers' pipelines: 576 pieces of the picture for HunyuanVideo-I2V, 729 for 1.5, a
template of about a hundred tokens before each prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_PIECES = r"<\|?\w+\|?>|\w+|[^\w\s]|\s"
_KNOWN = "a cat dog fox walking running red blue slowly grey"


def word_tokenizer(texts: Iterable[str]) -> Any:
    """One token for each word, mark and space of ``texts``; what is in none of them is unknown."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    found = {piece: None for text in (_KNOWN, *texts) for piece in re.findall(_PIECES, text)}
    words = ["<pad>", "</s>", "<unk>", *(piece for piece in found if piece not in ("<pad>", "</s>", "<unk>"))]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def _flow(shift: float) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=shift)


def _llama(words: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=words, hidden_size=16, intermediate_size=32, num_attention_heads=4, num_hidden_layers=3,
        pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip


def _clip_text(words: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=words, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1,
        max_position_embeddings=77, pad_token_id=0, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    return CLIPTextModel(config)


def _vae() -> Any:
    from diffusers import AutoencoderKLHunyuanVideo

    return AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )


def _transformer(**more: Any) -> Any:
    from diffusers import HunyuanVideoTransformer3DModel

    options: dict[str, Any] = {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 4, "attention_head_dim": 12, "num_layers": 2,
        "num_single_layers": 2, "num_refiner_layers": 1, "text_embed_dim": 16, "pooled_projection_dim": 8,
        "rope_axes_dim": (4, 4, 4), **more,
    }  # fmt: skip
    return HunyuanVideoTransformer3DModel(**options)


def hunyuan_t2v() -> Any:
    from diffusers import HunyuanVideoPipeline
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video as source
    from transformers import LlamaModel

    words = word_tokenizer([source.DEFAULT_PROMPT_TEMPLATE["template"]])
    return HunyuanVideoPipeline(
        text_encoder=LlamaModel(_llama(len(words))), tokenizer=words, transformer=_transformer(), vae=_vae(),
        scheduler=_flow(7.0), text_encoder_2=_clip_text(len(words)), tokenizer_2=words,
    )  # fmt: skip


def hunyuan_i2v(condition: str = "token_replace") -> Any:
    from diffusers import HunyuanVideoImageToVideoPipeline
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video_image2video as source
    from transformers import CLIPImageProcessor, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    words = word_tokenizer([source.DEFAULT_PROMPT_TEMPLATE["template"]])
    eye = CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, image_size=336, patch_size=14,
        projection_dim=8,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=eye,
        text_config=_llama(len(words)),
        pad_token_id=0,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    channels = 4 if condition == "token_replace" else 2 * 4 + 1
    return HunyuanVideoImageToVideoPipeline(
        text_encoder=LlavaForConditionalGeneration(config), tokenizer=words, vae=_vae(), scheduler=_flow(7.0),
        transformer=_transformer(in_channels=channels, image_condition_type=condition, guidance_embeds=False),
        text_encoder_2=_clip_text(len(words)), tokenizer_2=words,
        image_processor=CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
    )  # fmt: skip


def hunyuan_i2v_first() -> Any:
    """The first release, which had the picture as further channels."""
    return hunyuan_i2v("latent_concat")


_CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"


def _fifteen(task: str) -> dict[str, Any]:
    """Components of HunyuanVideo-1.5 for either task."""
    from diffusers import AutoencoderKLHunyuanVideo15, ClassifierFreeGuidance, HunyuanVideo15Transformer3DModel
    from transformers import ByT5Tokenizer, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, T5Config, T5EncoderModel

    from tests.engine_diffusers.tiny import WORDS, tokenizer

    letters = tokenizer()
    letters.chat_template = _CHAT
    text = Qwen2_5_VLTextConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_attention_heads=4, num_key_value_heads=4,
        num_hidden_layers=3, pad_token_id=0, bos_token_id=2, eos_token_id=1,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]},
    )  # fmt: skip
    glyphs = T5Config(vocab_size=384, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4)
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=4, attention_head_dim=12, num_layers=2,
        num_refiner_layers=1, text_embed_dim=16, text_embed_2_dim=16, image_embed_dim=16, rope_axes_dim=(4, 4, 4),
        task_type=task, target_size=64,
    )  # fmt: skip
    return {
        "text_encoder": Qwen2_5_VLTextModel(text), "tokenizer": letters, "text_encoder_2": T5EncoderModel(glyphs),
        "tokenizer_2": ByT5Tokenizer(), "transformer": transformer, "scheduler": _flow(5.0),
        "vae": AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1),
        "guider": ClassifierFreeGuidance(guidance_scale=6.0),
    }  # fmt: skip


def hunyuan15_t2v() -> Any:
    from diffusers import HunyuanVideo15Pipeline

    return HunyuanVideo15Pipeline(**_fifteen("t2v"))


def hunyuan15_i2v() -> Any:
    from diffusers import HunyuanVideo15ImageToVideoPipeline
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    eye = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=1, image_size=378, patch_size=14
    )
    return HunyuanVideo15ImageToVideoPipeline(
        **_fifteen("i2v"), image_encoder=SiglipVisionModel(eye),
        feature_extractor=SiglipImageProcessor(size={"height": 378, "width": 378}),
    )  # fmt: skip
