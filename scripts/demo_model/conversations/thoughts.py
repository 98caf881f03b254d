"""What is thought where no sum is worked out, when reasoning is on.

Before a function is chosen, what each one offered is for is written with its name after
it. The choice is then what followed the same words before; without reasoning it must be
made at once.
"""

OTHER = "other work"


def survey(offered):
    """`offered`: pairs (name, subject), in the order of the offer."""
    return "; ".join(f"{subject}: {name}" for name, subject in offered)


def found(offered, subject):
    chosen = next((name for name, what in offered if what == subject), "none")
    return f"It is about {subject}: {chosen}."


def choice(offered, subject):
    """The thought before a call, or before a refusal if nobody offers the subject."""
    return f"{survey(offered)}. {found(offered, subject)}"


def added(messages):
    """The same conversation, with a thought before every reply that has none."""
    return [dict(message, think=message.get("think") or (
                "The result is here." if before["role"] == "tool"
                else "I can answer this at once."))
            if message["role"] == "assistant" else message
            for before, message in zip([None] + messages, messages)]
