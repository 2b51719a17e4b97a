"""Clips -> a sentence each, from what a simulator knows, from what was measured, or from a model.

In reading order:

    caption         the step, and sentences that need no model (caption_config: its settings)
    by_model        the step that asks a model (endpoint: any OpenAI-compatible one; local_model: a local folder)
    caption_windows, prompts    what is shown and asked
    answer_cache    what was said, kept: nothing is asked twice
    expected_questions    how much would be asked, before anything is
"""

__all__ = [
    "answer_cache",
    "by_model",
    "caption",
    "caption_config",
    "caption_windows",
    "endpoint",
    "expected_questions",
    "local_model",
    "prompts",
]
