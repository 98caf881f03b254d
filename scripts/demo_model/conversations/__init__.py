"""Synthetic conversations: what the demo model is trained on and tested with.

Pure Python; the same seed gives the same conversations on every machine. `mixture.sample`
makes training conversations, `evaluation.cases` the held-out ones; `split` says what is
kept apart. A conversation is `(messages, tools)` in the form of the chat API; an
assistant's message may have `think`, its reasoning.
"""
