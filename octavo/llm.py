"""LLM: the offline front door. Text in, text out, in one process, under vLLM's names.

Owns what prompts and answers look like to a caller; LiveRequests drives the engine. Not for several
threads at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict

from octavo.build import EngineFacts, TextParts, build_engine, build_text
from octavo.config import (
    CacheConfig,
    ComputeConfig,
    EngineConfig,
    ModelConfig,
    SchedulerConfig,
    parse_bytes,
    parse_tokens,
)
from octavo.control.text.bad_words import bad_words_token_ids
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import RequestError
from octavo.live_requests import EncodedPrompt, LiveRequests
from octavo.outputs import CompletionOutput, RequestOutput
from octavo.progress import RequestProgress
from octavo.sampling_params import SamplingParams


class TextPrompt(TypedDict):
    """A prompt as text; the tokenizer adds BOS where the model was trained so."""

    prompt: str


class TokensPrompt(TypedDict):
    """A prompt as token ids, taken as they are. `prompt`, if given, is only carried to the output."""

    prompt_token_ids: list[int]
    prompt: NotRequired[str]


Prompt = str | TextPrompt | TokensPrompt
Message = dict[str, Any]


class LLM:
    """A loaded model that generates text. Use it as a context manager, or `close` it.

    with LLM() as llm:
        for output in llm.generate(["To be or", "Once upon"], SamplingParams(max_tokens=20)):
            print(output.outputs[0].text)
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        tokenizer: str | None = None,
        chat_template: str | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        seed: int | None = None,
        max_model_len: int | str | None = None,
        block_size: int = 16,
        kv_cache_memory: int | str | None = None,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 512,
        device: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: Hugging Face folder, .gguf file or hub id; None takes the installed starter model.
            tokenizer: folder or file to take the tokenizer from instead.
            chat_template: file with a Jinja template to use instead of the model's own.
            revision: branch, tag or commit of a hub id.
            dtype: "auto", "float32", "bfloat16" or "float16".
            seed: makes requests without a seed of their own repeatable.
            max_model_len: longest context in tokens; None: the model's own.
            block_size: tokens in a KV block.
            kv_cache_memory: bytes for the KV pool, or a size such as "512MB"; None: a share of free memory.
            max_num_seqs: sequences that may be in one step.
            max_num_batched_tokens: tokens that one step may compute.
            device: "auto", "cpu" or "cuda".
            num_threads: threads for calculation; None: one per available core.

        Raises:
            ModelLoadError: the model cannot be found or loaded.
            ConfigError: a setting is wrong, or does not fit the model or the machine.
        """
        if isinstance(max_model_len, str):
            max_model_len = parse_tokens(max_model_len)
        if isinstance(kv_cache_memory, str):
            kv_cache_memory = parse_bytes(kv_cache_memory)
        self._load(
            EngineConfig(
                model=ModelConfig(
                    model=model,
                    tokenizer=tokenizer,
                    chat_template=chat_template,
                    revision=revision,
                    max_model_len=max_model_len,
                ),
                compute=ComputeConfig(device=device, dtype=dtype, num_threads=num_threads),
                cache=CacheConfig(block_size=block_size, kv_cache_memory=kv_cache_memory),
                scheduler=SchedulerConfig(
                    max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens, seed=seed
                ),
            )
        )

    @classmethod
    def from_config(
        cls, config: EngineConfig, *, on_progress: Callable[[int, int], None] | None = None
    ) -> Self:
        """The same from a config. `on_progress` gets (parameters loaded, parameters in all)."""
        llm = cls.__new__(cls)
        llm._load(config, on_progress)
        return llm

    def _load(self, config: EngineConfig, on_progress: Callable[[int, int], None] | None = None) -> None:
        # Offline nobody is to be refused for a full queue: the caller waits for its own requests.
        scheduler = replace(config.scheduler, max_queued_requests=sys.maxsize)
        self._text: TextParts = build_text(config.model)
        parts = build_engine(replace(config, scheduler=scheduler), on_progress=on_progress)
        self._engine = parts.engine
        self._max_num_seqs = scheduler.max_num_seqs
        self._live = LiveRequests(parts.engine, self._text.tokenizer)
        self.facts: EngineFacts = parts.facts

    # -- generating

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Continue prompts.

        Args:
            prompts: text, `{"prompt": text}`, `{"prompt_token_ids": [...]}`, or a list of these.
            sampling_params: one for all, or one for each prompt; None takes the model's defaults.
            use_tqdm: show a progress bar, where stderr is a terminal (the name is vLLM's).

        Returns:
            One output for each prompt, in the prompts' order. A request that broke while it ran has the
            finish reason "error"; the others are not disturbed.

        Raises:
            RequestError: a prompt or parameter is wrong; nothing was computed.
        """
        is_single = isinstance(prompts, str | Mapping)
        prompt_list: list[Any] = [prompts] if is_single else list(prompts)
        params_list = self._spread_params(sampling_params, len(prompt_list))
        requests = [
            (self._check(prompt, params), params)
            for prompt, params in zip(prompt_list, params_list, strict=True)
        ]
        outputs: dict[int, RequestOutput] = {}
        with ExitStack() as stack:
            progress = stack.enter_context(RequestProgress(len(requests))) if use_tqdm else None
            for index, output in self.generate_each(requests, progress=progress):
                if isinstance(output, RequestError):
                    raise output
                outputs[index] = output
        return [outputs[index] for index in range(len(requests))]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation, or each of several: `[{"role": "user", "content": "..."}, ...]`.

        Args:
            add_generation_prompt: begin the assistant's turn.
            continue_final_message: go on with the last message instead; then without the former.
            chat_template_kwargs: further variables for the model's chat template.

        Returns, Raises: as `generate`; also RequestError where the model has no chat template.
        """
        if not messages:
            raise RequestError("messages is empty; give at least one", param="messages")
        is_single = isinstance(messages[0], Mapping)
        conversations: list[Any] = [messages] if is_single else list(messages)
        prompts = [
            self.render_chat(
                conversation,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                chat_template_kwargs=chat_template_kwargs,
            )
            for conversation in conversations
        ]
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm)

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> Generator[RequestOutput]:
        """Continue one prompt, piece by piece: each output holds what was gained since the last one.

        Closing the iterator aborts the request. Several streams may be read in turn.

        Raises:
            RequestError: the prompt or a parameter is wrong; at the first piece.
        """
        params = self.get_default_sampling_params() if sampling_params is None else sampling_params
        request_id = self._live.submit(self._encode(prompt), params)
        try:
            is_finished = False
            while not is_finished:
                for output in self._live.take_ready(request_id):
                    yield output
                    is_finished = output.finished
                if not is_finished:
                    self._live.step()
        finally:
            self._live.abandon(request_id)

    def generate_each(
        self,
        requests: Iterable[tuple[Prompt, SamplingParams]],
        *,
        progress: RequestProgress | None = None,
    ) -> Iterator[tuple[int, RequestOutput | RequestError]]:
        """Continue any number of prompts; each comes as soon as it is finished, with its place in `requests`.

        `requests` is read only as far as there is room in the steps, so that it may be endless. What is
        wrong with a request comes instead of its output, and the others go on.
        """
        outputs: dict[str, tuple[int, RequestOutput]] = {}
        unread = enumerate(requests)
        has_more = True
        try:
            while has_more or outputs:
                # One waiting sequence for each running one: the next step is full whatever ends in this one.
                while has_more and self._engine.num_waiting < self._max_num_seqs:
                    index, request = next(unread, (0, None))
                    if request is None:
                        has_more = False
                        break
                    try:
                        output = self._start(*request)
                    except RequestError as error:
                        yield index, error
                    else:
                        outputs[output.request_id] = (index, output)
                if outputs:
                    self._live.step()
                for index, output in self._collect(outputs, progress):
                    yield index, output
        finally:
            for request_id in outputs:
                self._live.abandon(request_id)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> TokensPrompt:
        """The prompt that the model's chat template makes of a conversation.

        Raises:
            RequestError: the model has no template, or its template does not take these messages.
        """
        template = self._text.chat_template
        if template is None:
            raise RequestError(
                f"{self._text.source.name} has no chat template; give one with chat_template, "
                "or a plain prompt",
                param="messages",
            )
        text = template.render(
            list(messages),
            add_generation_prompt=add_generation_prompt and not continue_final_message,
            continue_final_message=continue_final_message,
            template_kwargs=chat_template_kwargs,
        )
        # The template writes the special tokens itself.
        token_ids = self._text.tokenizer.encode(text, add_special_tokens=False)
        return {"prompt": text, "prompt_token_ids": token_ids}

    # -- asking about the model

    @property
    def has_chat_template(self) -> bool:
        return self._text.chat_template is not None

    def get_tokenizer(self) -> Tokenizer:
        return self._text.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's makers recommend, over Octavo's defaults."""
        recommended: dict[str, Any] = self._text.description.default_sampling
        return SamplingParams(**recommended)

    def close(self) -> None:
        """Abort what is alive and free the model's memory. Idempotent."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- from prompts to the engine

    def _spread_params(
        self, sampling_params: SamplingParams | Sequence[SamplingParams] | None, num_prompts: int
    ) -> list[SamplingParams]:
        if sampling_params is None:
            sampling_params = self.get_default_sampling_params()
        if isinstance(sampling_params, SamplingParams):
            return [sampling_params] * num_prompts
        if len(sampling_params) != num_prompts:
            raise RequestError(
                f"{len(sampling_params)} sampling_params for {num_prompts} prompts; give one or as many",
                param="sampling_params",
            )
        return list(sampling_params)

    def _check(self, prompt: Prompt, params: SamplingParams) -> TokensPrompt:
        """Encode a prompt, and find out now whether the engine would refuse it."""
        encoded = self._encode(prompt)
        bad_words = bad_words_token_ids(self._text.tokenizer, params.bad_words)
        self._engine.limits.check(encoded.token_ids, params, bad_words)
        checked: TokensPrompt = {"prompt_token_ids": encoded.token_ids}
        if encoded.text is not None:
            checked["prompt"] = encoded.text
        return checked

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        fields: Mapping[str, object] = {"prompt": prompt} if isinstance(prompt, str) else prompt
        if not isinstance(fields, Mapping) or not {"prompt", "prompt_token_ids"} >= set(fields) or not fields:
            raise RequestError(
                'a prompt must be text, {"prompt": text} or {"prompt_token_ids": [...]}', param="prompt"
            )
        text, token_ids = fields.get("prompt"), fields.get("prompt_token_ids")
        if text is not None and not isinstance(text, str):
            raise RequestError(f"prompt must be text, not {type(text).__name__}", param="prompt")
        if token_ids is None:
            return EncodedPrompt(text, self._text.tokenizer.encode(text or ""))
        if isinstance(token_ids, str | bytes) or not isinstance(token_ids, Sequence):
            raise RequestError("prompt_token_ids must be a list of token ids", param="prompt_token_ids")
        return EncodedPrompt(text, list(token_ids))

    def _start(self, prompt: Prompt, params: SamplingParams) -> RequestOutput:
        """Submit a request; the output that is to be filled."""
        encoded = self._encode(prompt)
        request_id = self._live.submit(encoded, params)
        outputs = [CompletionOutput(index) for index in range(params.n)]
        return RequestOutput(request_id, encoded.text, encoded.token_ids, None, outputs, finished=False)

    # -- from the engine to outputs

    def _collect(
        self, outputs: dict[str, tuple[int, RequestOutput]], progress: RequestProgress | None
    ) -> list[tuple[int, RequestOutput]]:
        """Add to these outputs what has come of them; those that are now finished."""
        finished = []
        for request_id, (index, output) in list(outputs.items()):
            for gained in self._live.take_ready(request_id):
                output.add(gained)
                if progress is not None:
                    progress.add_tokens(sum(len(piece.token_ids) for piece in gained.outputs))
            if output.finished:
                finished.append((index, output))
                del outputs[request_id]
                if progress is not None:
                    progress.finish_request()
        return finished
