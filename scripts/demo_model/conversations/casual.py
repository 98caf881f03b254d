"""Questions as people type them in a hurry."""


def _hurried(text, lower):
    text = text.lower() if lower else text[0].lower() + text[1:]
    return text.rstrip("?.! ") or text


def typed(source, messages, lower=False):
    """Some of the short questions begin in lower case and end without a mark.

    `lower`: some are of lower-case letters alone (where an answer copies none of them)."""
    return [dict(message, content=_hurried(message["content"], lower and source.chance(0.5)))
            if message["role"] == "user" and len(message["content"]) < 100 and source.chance(0.7)
            else message for message in messages]
