"""Tokenizers for tests: one of Llama's SentencePiece shape, and the lab's with added tokens."""

import string

from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from training.lab.tokenizer import build_tokenizer

SPECIAL = ["<|im_start|>", "<|im_end|>", "<extra_0>"]
ORDINARY = "ки"  # an added token that is no special one


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Characters with a dummy prefix and byte fallback: a newline is token 13, as in Llama's own vocabulary."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *string.ascii_letters]
    tokens += [*string.digits, *"#.,+=*-/?"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


def tokenizer_with_added_tokens() -> PreTrainedTokenizerFast:
    """The lab's tokenizer with chat-control tokens and an ordinary added token."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.add_tokens([ORDINARY])
    return tokenizer
