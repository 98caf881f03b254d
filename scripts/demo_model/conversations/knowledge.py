"""What the model knows by heart: capitals, explanations of its own architecture, greetings."""

from . import vocabulary
from .source import exchange

_ME = "I am a tiny Qwen3-Next demo model. I was trained on a CPU to test an inference server."
GREETINGS = [
    ("Hello!", "Hello! How can I help you?"),
    ("Hi", "Hello! How can I help you?"),
    ("Hey", "Hello! How can I help you?"),
    ("Hi there!", "Hello! How can I help you?"),
    ("Good morning!", "Good morning! How can I help you?"),
    ("Good evening!", "Good evening! How can I help you?"),
    ("How are you?", "I am fine, thank you. How can I help you?"),
    ("Who are you?", _ME),
    ("What are you?", _ME),
    ("What is your name?", _ME),
    ("Are you a human?", _ME),
    ("Tell me about yourself.", _ME),
    ("What can you do?", "I can do sums, spell words, call tools, recall facts from your text, "
     "and explain my own architecture."),
    ("Help", "I can do sums, spell words, call tools, recall facts from your text, "
     "and explain my own architecture."),
    ("Thank you!", "You are welcome!"),
    ("Thanks", "You are welcome!"),
    ("Great!", "Thank you!"),
    ("Bye", "Goodbye!"),
    ("Goodbye!", "Goodbye!"),
    ("Tell me a joke.", "Why did the expert stay home? The router did not pick it."),
]

EXPLANATIONS = {
    "a mixture of experts": "A mixture of experts has many small networks in place of a large "
    "one. For each token a router picks a few of them, so most weights stay idle.",
    "the router": "The router gives each expert a score for a token. The few best experts run, "
    "and their scores become weights that sum to one.",
    "a shared expert": "A shared expert is a small network that sees every token. A gate sets "
    "how much of its output is added.",
    "a gated delta net": "A gated delta net is linear attention with a state of fixed size. "
    "Each token lets the state fade, then replaces what it holds for one key.",
    "the delta rule": "The delta rule reads what the state holds for a key, and writes only the "
    "difference to the new value.",
    "linear attention": "Linear attention keeps a state of fixed size in place of a growing "
    "cache. Each new token costs the same, however long the text is.",
    "multi-token prediction": "Multi-token prediction adds a small head that guesses the token "
    "after the next one. A server uses the guesses as drafts.",
    "speculative decoding": "Speculative decoding lets something cheap draft several tokens. "
    "The model checks them in one pass and keeps those that it would have chosen.",
    "a KV cache": "A KV cache stores the keys and values of past tokens, so that new tokens can "
    "attend to them without computing them again.",
    "a prefix cache": "A prefix cache keeps the state after a prompt that many requests share. "
    "A request with the same start skips that work.",
    "quantization": "Quantization stores weights with fewer bits. The model gets smaller and "
    "faster, and loses a little accuracy.",
    "gated attention": "Gated attention multiplies the output of attention by a sigmoid gate, "
    "which is computed from the same input as the query.",
    "rotary embedding": "Rotary embedding turns parts of queries and keys by an angle that "
    "grows with the position. Here a quarter of each head is turned.",
    "RMS norm": "RMS norm divides a vector by its root mean square, and then scales each entry "
    "by a learned weight.",
    "a tokenizer": "A tokenizer cuts text into pieces from a fixed list. Each piece has a number "
    "that the model reads.",
    "grouped-query attention": "Grouped-query attention shares each key and value head between "
    "several query heads, which makes the KV cache smaller.",
    "a causal convolution": "A causal convolution mixes each token with the few tokens before "
    "it, and never looks ahead.",
    "continuous batching": "Continuous batching adds new requests to a running batch as soon as "
    "others finish, so that the hardware stays busy.",
    "tool calling": "Tool calling lets the model ask for a function by name with JSON arguments. "
    "The client runs it and sends the result back.",
    "temperature": "Temperature divides the logits before sampling. A low value makes the answer "
    "more certain, a high value more varied.",
    "Qwen3-Next": "Qwen3-Next is a language model of gated delta net layers and gated attention "
    "layers. Each layer has a mixture of experts.",
    "a load-balancing loss": "A load-balancing loss makes the router use all experts about "
    "equally. Without it a few would do all the work.",
}


def capital(source):
    while True:
        country, form = source.pick(list(vocabulary.CAPITALS)), source.integer(0, 3)
        if source.allows("cap", country, form):
            break
    city = vocabulary.CAPITALS[country]
    if form < 2:
        question = [f"What is the capital of {country}?",
                    f"Tell me the capital of {country}."][form]
        return exchange(question, f"The capital of {country} is {city}.")
    question = [f"Which country has the capital {city}?",
                f"{city} is the capital of which country?"][form - 2]
    return exchange(question, f"{city} is the capital of {country}.")


def explanation(source):
    while True:
        topic, form = source.pick(list(EXPLANATIONS)), source.integer(0, 5)
        if source.allows("arch", topic, form):
            break
    question = [f"What is {topic}?", f"Explain {topic}.", f"Tell me about {topic}.",
                f"What does {topic} mean?", f"Can you explain {topic}?",
                f"How does {topic} work?"][form]
    return exchange(question, EXPLANATIONS[topic])


def chat(source):
    draw = source.random.random()
    if draw < 0.45:
        return capital(source)
    if draw < 0.6:
        return exchange(*source.pick(GREETINGS))
    return explanation(source)
