"""`octavo chat`: a conversation on the terminal, with a model loaded here or with a running server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Protocol

from octavo.cli.chat_client import ServerChat
from octavo.cli.config_flags import add_engine_flags, add_model_positional, flag_of, read_engine_config
from octavo.cli.sampling_flags import add_sampling_flags, sampling_given
from octavo.cli.terminal import load_llm, say_dim, write_text
from octavo.config import EngineConfig
from octavo.errors import OctavoError, RequestError, RequestFailedError
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.llm import LLM

# An answer may go on to the end of the context, as over the API; Ctrl-C stops it.
_DEFAULTS = {"max_tokens": None}
_NOT_IN_CHAT = ("n", "best_of", "use_beam_search", "length_penalty", "early_stopping")
# One request runs at a time, and nobody is refused.
_NO_EFFECT = (
    *("model", "seed", "max_num_seqs", "swap_space", "policy", "fair_weights", "target_itl_ms"),
    *("max_queued_requests", "max_queued_tokens", "queue_timeout"),
)
_HELP = """\
/system TEXT   set the system prompt and begin anew
/clear         forget the conversation
/exit          leave (so does Ctrl-D)
Ctrl-C         stop the answer"""

Messages = list[dict[str, Any]]


class ChatModel(Protocol):
    """Whoever answers."""

    @property
    def title(self) -> str:
        """The model's name and where it runs."""

    def answer(self, messages: Messages) -> Generator[str]:
        """The answer, piece by piece. Closing the generator stops it.

        Raises:
            OctavoError: there is no (further) answer, and why.
        """

    def close(self) -> None: ...


class LocalChat:
    """A model in this process."""

    def __init__(self, config: EngineConfig, wanted: dict[str, Any]) -> None:
        self._llm: LLM = load_llm(config)
        self._params = self._llm.make_sampling_params(wanted)
        if not self._llm.has_chat_template:
            self.close()
            raise RequestError(
                f"{self._llm.facts.model_name} has no chat template; give one with --chat-template, "
                "or use `octavo generate`"
            )

    @property
    def title(self) -> str:
        facts = self._llm.facts
        return (
            f"{facts.model_name} ({facts.dtype} on {facts.device}, {facts.max_model_len} tokens of context)"
        )

    def answer(self, messages: Messages) -> Generator[str]:
        with closing(self._llm.stream(self._llm.render_chat(messages), self._params)) as pieces:
            for piece in pieces:
                for output in piece.outputs:
                    if output.error is not None:
                        raise RequestFailedError(output.error)
                    yield output.text

    def close(self) -> None:
        self._llm.close()


class Conversation:
    """What was said, and the loop that goes on with it."""

    def __init__(self, model: ChatModel, system_prompt: str | None) -> None:
        self._model = model
        self._system_prompt = system_prompt
        self._messages: Messages = []
        self._num_failures = 0
        self._is_interactive = sys.stdin.isatty() and sys.stdout.isatty()

    def run(self) -> int:
        """Until /exit or the end of the input. The exit code: 1 where an answer failed unattended."""
        if self._is_interactive:
            _enable_line_editing()
            write_text(f"{self._model.title}\n")
            say_dim("Type a message; /help for more, Ctrl-D to leave.")
        while (line := self._read_line()) is not None:
            if line == "/exit":
                break
            if line.startswith("/"):
                self._obey(line)
            elif line:
                self._say(line)
        return 1 if self._num_failures and not self._is_interactive else 0

    def _read_line(self) -> str | None:
        """The next line, stripped; None at the end of the input."""
        while True:
            try:
                return input("\n> " if self._is_interactive else "").strip()
            except EOFError:
                if self._is_interactive:
                    write_text("\n")
                return None
            except UnicodeDecodeError:
                self._complain("the input is no UTF-8 text")
            except KeyboardInterrupt:
                if not self._is_interactive:
                    raise
                write_text("\n")
                say_dim("Ctrl-D or /exit leaves.")

    def _obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command == "/help":
            write_text(_HELP + "\n")
        elif command == "/clear":
            self._messages.clear()
        elif command == "/system" and rest.strip():
            self._system_prompt = rest.strip()
            self._messages.clear()
        elif command == "/system":
            self._complain("/system needs a text: /system You are a pirate.")
        else:
            self._complain(f"unknown command {command}; /help lists them")

    def _say(self, text: str) -> None:
        """One turn. What failed is forgotten; what was cut short is kept as far as it came."""
        self._messages.append({"role": "user", "content": text})
        system: Messages = []
        if self._system_prompt is not None:
            system = [{"role": "system", "content": self._system_prompt}]
        pieces: list[str] = []
        try:
            with closing(self._model.answer(system + self._messages)) as answer:
                for piece in answer:
                    pieces.append(piece)
                    write_text(piece)
        except KeyboardInterrupt:
            if not self._is_interactive:
                raise
            write_text(" ...")
        except OctavoError as error:
            self._messages.pop()
            self._complain(str(error))
            return
        write_text("\n")
        self._messages.append({"role": "assistant", "content": "".join(pieces)})

    def _complain(self, message: str) -> None:
        self._num_failures += 1
        print(f"octavo: {message}", file=sys.stderr)


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.usage = "octavo chat [MODEL] [flags]"
    parser.description = "A conversation on the terminal. With piped input, each line is a message."
    add_model_positional(parser)
    parser.add_argument(
        "--url", metavar="URL", help="talk to this running server, e.g. http://127.0.0.1:8000"
    )
    parser.add_argument("--system", metavar="TEXT", help="system prompt; default: the chat template's own")
    add_engine_flags(parser, without=_NO_EFFECT)
    add_sampling_flags(parser, defaults=_DEFAULTS, without=_NOT_IN_CHAT)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    given = sampling_given(arguments)
    SamplingParams(**given)  # a wrong value is told before a model is loaded
    engine_given = {name: value for name, value in vars(arguments).items() if name not in given}
    model: ChatModel
    if arguments.url is not None:
        _refuse_engine_flags(arguments, engine_given)
        model = ServerChat(arguments.url, _DEFAULTS | given)
    else:
        model = LocalChat(read_engine_config(engine_given), _DEFAULTS | given)
    with closing(model):
        return Conversation(model, arguments.system).run()


def _refuse_engine_flags(arguments: argparse.Namespace, engine_given: dict[str, Any]) -> None:
    own = {"url", "system", "run", "parser"}
    for name in engine_given:
        if name not in own:
            shown = "MODEL" if name == "model" else flag_of(name)
            arguments.parser.error(f"{shown} has no effect with --url: the server has its own")


def _enable_line_editing() -> None:
    with suppress(ImportError):  # a Python built without it still reads lines
        import readline  # noqa: F401, PLC0415  (importing it is what changes `input`)
