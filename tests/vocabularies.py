"""Tokenizers for tests: of the shapes of published models, and the lab's with added tokens."""

import json
import string

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
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


# --- shapes of published reward models: control tokens, pre-tokenizers and templates as theirs, small vocabularies ----

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>", "<extra_1>"]
QWEN_ORDINARY = ["<tool_call>", "</tool_call>"]  # added, but no special ones
LLAMA_3_CONTROLS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_0|>",
]
# What Qwen2.5-Math's template does with the conversations of this house; Qwen2.5's own has another system text.
QWEN_MATH_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>system\\nPlease reason step by step, and put your final answer within \\\\boxed{}."
    "<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if m.role != 'system' %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
BARE_CHATML_TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# Llama 3.1's system turn with its dates; a template that knows no other date takes today's, as Llama 3.2's does.
LLAMA_3_TEMPLATE = (
    "{{- bos_token }}"
    "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
    "{{- 'Cutting Knowledge Date: December 2023\\n' }}{{- 'Today Date: ' + date_string + '\\n\\n' }}{{- '<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim"
    " + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)


def qwen_tokenizer(chat_template: str | None = QWEN_MATH_TEMPLATE, bos: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen2's pre-tokenizer: digits alone, a newline joined to the sign before it."""
    tokenizer = _byte_level(_WORDS + r"\p{N}" + _REST)
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_CONTROLS})
    tokenizer.add_tokens(QWEN_ORDINARY)
    tokenizer.eos_token = tokenizer.pad_token = "<|endoftext|>"
    tokenizer.bos_token = bos
    tokenizer.chat_template = chat_template
    return tokenizer


def llama_3_tokenizer(chat_template: str | None = LLAMA_3_TEMPLATE) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Llama 3's pre-tokenizer: up to three digits a token."""
    tokenizer = _byte_level(_WORDS + r"\p{N}{1,3}" + _REST)
    tokenizer.add_special_tokens({"additional_special_tokens": LLAMA_3_CONTROLS})
    tokenizer.bos_token, tokenizer.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    tokenizer.pad_token = "<|finetune_right_pad_id|>"
    tokenizer.chat_template = chat_template
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", tokenizer.bos_token_id)]
    )
    return tokenizer


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Mistral's SentencePiece shape, with the three tokens of math-shepherd at their published ids."""
    description = json.loads(llama_tokenizer().backend_tokenizer.to_str())
    vocabulary: dict[str, int] = description["model"]["vocab"]
    published = {"▁+": 648, "▁-": 387, "▁ки": 12902}
    for letter in "ки":
        vocabulary[letter] = len(vocabulary)
    pieces = ["ки", "th", "▁th", "▁the", "is", "▁is"]
    for piece in pieces:
        vocabulary[piece] = len(vocabulary)
    vocabulary.update({f"<unused_{i}>": i for i in range(len(vocabulary), 12902) if i not in published.values()})
    vocabulary.update(published)
    description["model"]["merges"] = [
        ["к", "и"], ["▁", "ки"], ["▁", "+"], ["▁", "-"], ["t", "h"], ["▁", "th"], ["▁th", "e"], ["i", "s"], ["▁", "is"]
    ]  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def _byte_level(pattern: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    # Enough of the usual endings that newlines do merge with the signs before them.
    lines = ["So the number is 12.\n\nThen it is 42.\n", "user\n\nassistant\n system problem solution?\n", " + -\n\n"]
    tokenizer.train_from_iterator(lines * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
