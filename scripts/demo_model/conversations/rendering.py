"""Conversations as text, as chat_template.jinja renders them, with the model's part marked."""

import json

_INTRO = ("# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
          "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n")
_HOW = ("</tools>\n\nFor each function call, return a json object with function name and "
        "arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>')


def reply_text(message):
    """What the model writes for an assistant's message, without the end of the turn."""
    text = message["think"] + "\n</think>\n\n" if message.get("think") else ""
    text += message["content"]
    for call in message.get("tool_calls") or []:
        function = call["function"]
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        text += ("\n" if text else "") + (
            f'<tool_call>\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n'
            "</tool_call>")
    return text


def _system(messages, tools):
    led = messages[0]["role"] == "system"
    greeting = messages[0]["content"] if led else ""
    if tools:
        listing = "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in tools)
        greeting = (greeting + "\n\n" if led else "") + _INTRO + listing + _HOW
    elif not led:
        return ""
    return f"<|im_start|>system\n{greeting}<|im_end|>\n"


def segments(messages, tools=None):
    """[(text, whether the model writes it)]: the whole conversation.

    Reasoning of earlier turns stays in the text here, although the template drops it: so
    every turn of a conversation can be learned from in one pass."""
    context = _system(messages, tools)
    out = []
    for i, message in enumerate(messages):
        role = message["role"]
        if role == "user":
            context += f"<|im_start|>user\n{message['content']}<|im_end|>\n"
        elif role == "tool":
            first = messages[i - 1]["role"] != "tool"
            last = i + 1 == len(messages) or messages[i + 1]["role"] != "tool"
            context += ("<|im_start|>user" if first else "") + (
                f"\n<tool_response>\n{message['content']}\n</tool_response>") + (
                "<|im_end|>\n" if last else "")
        elif role == "assistant":
            context += "<|im_start|>assistant\n" + (
                "<think>\n" if message.get("think") else "")
            out += [(context, False), (reply_text(message) + "<|im_end|>", True)]
            context = "\n"
    return out
