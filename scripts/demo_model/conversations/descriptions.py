"""What functions say of themselves at length, as agents' tools do, and an agent's own
functions that nobody here asks for.

Nothing of it says what a function is for: that is the family's sentence, before it.
An eighth of the sentences and of the agents' functions is held out, by `split.held_out`.
"""

from . import vocabulary

# {f} the function, {p} a path, {w} a word, {n} a number.
SENTENCES = """
This function was found in the project by running `{p}` in its root.
The command `{p} {f}` is run in a process of its own when this tool is called.
When called, this tool runs `{p}/{w}` with the arguments on its standard input.
How tools are found and called can be changed in the settings of the user or of the project.
The output is returned as a JSON string.
On success the result is a JSON object, otherwise an error with a code.
If the call fails, the following information is returned instead.
Use this tool when the user asks for it, and only then.
Use {f} only if no other tool fits better.
Do NOT use this tool to ask whether something is right.
IMPORTANT: never call {f} more than {n} times in a row.
You must always give all of the parameters.
Every parameter is required unless it says otherwise.
Parameters are validated before the call, and a wrong type is an error.
The result is cut after {n} characters.
Results are cached for {n} minutes.
This may take up to {n} seconds, so be patient.
A call that takes longer than {n} seconds is stopped.
It is safe to call this tool several times with the same arguments.
The tool reads but never writes, so no permission is needed.
The user is asked for permission before the tool is run.
Users can turn this tool off in the settings under "{w}".
See `{p}` for the complete list of what is supported.
The documentation is in {p}, with examples.
Version {n} of this tool is deprecated and will go away soon.
This tool needs access to the network.
Works offline, without a key.
An API key must be set in the environment variable {W}_KEY.
Limits: {n} calls an hour for each user.
The answer is in English, whatever the language of the question is.
Do not translate names, paths or identifiers.
Quote what the tool returns exactly as it is.
Tell the user in one sentence what was found.
Prefer this over running a command in a shell.
If you are not sure about an argument, ask the user first.
Clarify what is meant before you call it when the request is ambiguous.
You can call several tools in one reply if they do not depend on each other.
Wait for the result before you call the next tool.
Dates are in UTC, and numbers have a point before their decimals.
The caller is responsible for the content of `{w}`.
For internal use by the {w} team.
Maintained by {N}, see {p}.
The server at {w}.example.com/{w} is asked, with a timeout of {n} seconds.
Errors are reported as they are, together with the exit code.
Returns nothing if there is no such entry.
An empty result means that nothing was found, which is not an error.
The tool keeps no state between two calls.
All calls are written to the log {p} for {n} days.
It is a thin layer over `{w} --{w}`, with the same behaviour.
Plan mode: this tool may be used before the plan is approved.
""".strip().split("\n")

NOTES = """
Stdout: what the command printed, or `(empty)`
Stderr: what it said on its error stream, or `(empty)`
Error: what went wrong, or `(none)`
Exit code: a number, or `(none)` if a signal ended it
Signal: the number of the signal, or `(none)`
Background: processes that are still running
Status: one of "ok", "failed" and "late"
Cost: {n} credits for each call
Scope: project, user or system
Since: version {n}
Owner: the {w} group
Timeout: {n} s
Retries: {n}, with a growing pause between them
Format: JSON, at most {n} kB
Example: see `{p}`
Recommended: yes
Category: {w} and {w}
Tags: {w}, {w}
License: see `{p}`
Platforms: linux
Note: long texts are cut
Warning: not for secrets
""".strip().split("\n")

HEADINGS = ["Usage notes:", "## When to use this tool", "## Notes", "Returns:", "Rules:",
            "**Important:**", "Before you call it:", "The following is returned:", "Usage:",
            "## Before using this tool", "Details:"]

# An agent's own functions: name -> (what it is for, parameters).
AGENT_FUNCTIONS = {
    "ask_user_question": ("Asks the user questions while the work goes on.",
                          ["questions", "header", "options"]),
    "exit_plan_mode": ("Shows the plan when planning is finished.", ["plan"]),
    "todo_write": ("Keeps the list of what is to be done.", ["todos"]),
    "run_shell_command": ("Runs a command in a shell.", ["command", "directory", "is_background"]),
    "edit": ("Replaces a piece of text within a file.",
             ["file_path", "old_string", "new_string", "replace_all"]),
    "write_file": ("Writes content to a file on disk.", ["file_path", "content"]),
    "glob": ("Finds files whose names match a pattern.", ["pattern", "path"]),
    "grep_search": ("Finds lines that match a regular expression.",
                    ["pattern", "path", "include", "limit"]),
    "list_directory": ("Lists what a directory holds.", ["path", "ignore"]),
    "task": ("Starts another agent for a piece of work.",
             ["description", "prompt", "subagent_type"]),
    "save_memory": ("Keeps something for later sessions.", ["fact", "scope"]),
    "merge_branch": ("Brings one branch into another.", ["branch", "into"]),
    "skill": ("Loads a skill by its name.", ["skill", "args"]),
    "task_stop": ("Stops a task that runs in the background.", ["task_id"]),
    "notebook_edit": ("Changes one cell of a notebook.", ["notebook", "cell", "source"]),
    "create_branch": ("Makes a branch in the repository.", ["branch", "base"]),
    "commit_changes": ("Commits what has changed.", ["summary", "files"]),
    "run_tests": ("Runs the tests of the project.", ["suite", "filter", "verbose"]),
    "query_database": ("Sends a statement to the database.", ["statement", "limit"]),
    "take_screenshot": ("Takes a picture of the screen.", ["window", "format"]),
    "deploy_service": ("Brings a service to a cluster.", ["service", "image", "replicas"]),
    "cron_create": ("Has something done again and again.", ["schedule", "prompt"]),
    "enter_worktree": ("Makes a working tree to work in.", ["name"]),
    "tool_search": ("Finds more tools by a few keywords.", ["keywords", "max_results"]),
}


def _ours(source, texts):
    return [text for text in texts if source.allows("note", text)]


def _some(source, texts, least, most):
    """Different ones of our side of the split."""
    ours = _ours(source, texts)
    return source.random.sample(ours, min(len(ours), source.integer(least, most)))


def _path(source):
    words = source.plain_words(source.integer(1, 3))
    if source.chance(0.3):
        words[0] = "tmp/" + "".join(source.pick("abcdefghijklmnopqrstuvwxyz0123456789_")
                                    for _ in range(source.integer(6, 11)))
    return source.pick(["/", "/", "./", "../"]) + "/".join(words) + source.pick(
        ["", "", ".json", ".md", ".sh"])


def _filled(source, text, name):
    word = source.plain_words(1)[0]
    return text.format(f=name, p=_path(source), w=word, W=word.upper(),
                       n=source.integer(2, 500), N=source.pick(vocabulary.NAMES))


def _block(source, name):
    """A paragraph, a list, or notes with their names before them."""
    draw = source.random.random()
    if draw < 0.55:
        chosen = _some(source, SENTENCES, 1, 5)
        joined = source.pick([" ", "\n"])
    elif draw < 0.8:
        mark = source.pick(["- ", "* ", "1. "])
        chosen = [mark + sentence for sentence in _some(source, SENTENCES, 2, 5)]
        joined = "\n"
    else:
        end = source.pick([".", ""])
        chosen = [note + end for note in _some(source, NOTES, 2, 6)]
        joined = "\n"
    head = source.pick(HEADINGS) + "\n" if joined == "\n" and source.chance(0.5) else ""
    return head + joined.join(_filled(source, text, name) for text in chosen)


def long_description(source, name, purpose):
    """`purpose` first, then 200 to 1,500 characters on anything else."""
    text, length = purpose, source.integer(200, 1200)
    gap = source.pick(["\n\n", "\n\n", "\n", " "])
    while len(text) < length:
        text += gap + _block(source, name)
    return text + source.pick(["", "\n"])


def _agent_parameter(source, name):
    entry = {"type": source.pick(["string", "string", "string", "integer", "boolean"])}
    draw = source.random.random()
    if draw < 0.15:
        entry = {"type": "array", "items": entry}
    elif draw < 0.3:
        first, second = source.plain_words(2)
        entry = {"type": "object", "properties": {first: entry, second: {"type": "string"}},
                 "required": [first]}
    elif draw < 0.4:
        entry["enum"] = source.plain_words(source.integer(2, 4))
        entry["type"] = "string"
    if source.chance(0.7):
        entry["description"] = f"The {name.replace('_', ' ')}. " + _filled(
            source, source.pick(_ours(source, SENTENCES)), name)
    return entry


def _agent_function(source, name):
    purpose, parameters = AGENT_FUNCTIONS[name]
    properties = {parameter: _agent_parameter(source, parameter) for parameter in parameters}
    schema = {"type": "object", "properties": properties,
              "required": list(properties)[:source.integer(1, len(properties))]}
    if source.chance(0.3):
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    if source.chance(0.3):
        schema["additionalProperties"] = False
    return {"type": "function", "function": {
        "name": name, "description": long_description(source, name, purpose),
        "parameters": schema}}


def agent_functions(source, count):
    """The schemas of different functions that no question here is for."""
    names = source.random.sample(_ours(source, AGENT_FUNCTIONS), count)
    return [_agent_function(source, name) for name in names]
