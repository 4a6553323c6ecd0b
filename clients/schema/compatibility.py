"""Fields of other servers' requests that are passed over where they ask for nothing, by the body that they stand in.

They are those of OpenAI's API and of vLLM 0.32 that Winnow does not have. Each has the values, beside null, at which it
changes nothing; at any other value it would change the answer, and is rejected. Fields that cannot change an answer
at any value are no part of these tables: they are declared, with their types, in `requests`.
"""

from __future__ import annotations

from winnow.clients.schema.base import Neutral

TOOLS = frozenset({"tools", "tool_choice", "functions", "function_call", "tool_calls", "tool_call_id", "role"})
"""Fields by which clients ask for tool calling; `role` where it is `tool` or `function`."""

MESSAGE: Neutral = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "reasoning": ("",),
    "reasoning_content": ("",),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
    "type": ("text",),  # lm-evaluation-harness writes it beside the role
}

_BOTH: Neutral = {
    "allowed_token_ids": (),
    "bad_words": ([],),
    "cache_salt": (),
    "early_stopping": (False,),
    "ec_transfer_params": ({},),
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_json_object": (False,),
    "guided_regex": (),
    "guided_whitespace_pattern": (),
    "include_stop_str_in_output": (False,),
    "kv_transfer_params": ({},),
    "length_penalty": (1.0,),
    "logprob_token_ids": ([],),
    "mm_payload": ("tensors", "none"),  # of vLLM's rendering endpoints only, as is `return_mm_kwargs`
    "priority": (0,),
    "prompt_logprobs": (),
    "repetition_detection": (),
    "response_format": ({"type": "text"},),
    "return_mm_kwargs": (True, False),
    "return_token_ids": (False,),
    "return_token_offsets": (False,),
    "return_tokens_as_token_ids": (False,),
    "routed_experts_prompt_start": (0,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True, False),  # matters only with `skip_special_tokens: false`
    "stop_token_ids": ([],),
    "stream_interval": (1,),
    "structured_outputs": (),
    "thinking_token_budget": (-1,),
    "truncate_prompt_tokens": (),
    "truncation_side": ("left", "right"),  # matters only with `truncate_prompt_tokens`
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermarking": (False,),
}

CHAT: Neutral = {
    **_BOTH,
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "audio": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include_reasoning": (True, False),  # there is no reasoning apart from the answer
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "return_prompt_text": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "web_search_options": (),
}

TOKENIZE: Neutral = {
    name: CHAT[name]
    for name in (
        "add_generation_prompt",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "media_io_kwargs",
        "mm_processor_kwargs",
        "tools",
    )
}

TEXT: Neutral = {**_BOTH, "add_special_tokens": (True,), "prompt_embeds": (), "suffix": ("",)}
