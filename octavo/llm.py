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
from typing import Any, Self, TypeVar

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
from octavo.control.cache.listing import CacheListing, PrefixPin
from octavo.control.decoding.best_of import check_streamable
from octavo.control.decoding.model_defaults import over_model_defaults
from octavo.control.text.bad_words import bad_words_token_ids
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import RequestError
from octavo.live_requests import GenerationRequest, LiveRequests
from octavo.outputs import RequestOutput
from octavo.progress import RequestProgress
from octavo.prompts import EncodedPrompt, Prompt, TokensPrompt, encode_prompt
from octavo.sampling_params import SamplingParams
from octavo.service_params import DEFAULT_SERVICE, ServiceParams, check_seconds

Message = dict[str, Any]

DEFAULT_TTL_SECONDS = 3600.0


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
        prefix_caching: bool = True,
        swap_space: int | str = 0,
        policy: str = "fcfs",
        fair_weights: Mapping[str, float] | None = None,
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
            prefix_caching: keep the KV of finished requests and reuse it for prompts that begin the same.
            swap_space: bytes of host memory for preempted sequences, or a size such as "4GB"; 0: they are
                recomputed.
            policy: who runs first: "fcfs", "priority" or "fair".
            fair_weights: under "fair", the shares of fairness keys; 1 for those not named.
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
        if isinstance(swap_space, str):
            swap_space = parse_bytes(swap_space)
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
                cache=CacheConfig(
                    block_size=block_size,
                    kv_cache_memory=kv_cache_memory,
                    prefix_caching=prefix_caching,
                    swap_space=swap_space,
                ),
                scheduler=SchedulerConfig(
                    max_num_seqs=max_num_seqs,
                    max_num_batched_tokens=max_num_batched_tokens,
                    policy=policy,
                    fair_weights=tuple((fair_weights or {}).items()),
                    seed=seed,
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
        scheduler = replace(config.scheduler, max_queued_requests=sys.maxsize, max_queued_tokens=None)
        self._text: TextParts = build_text(config.model)
        parts = build_engine(replace(config, scheduler=scheduler), on_progress=on_progress)
        self._engine = parts.engine
        self._max_num_seqs = scheduler.max_num_seqs
        self._policy = scheduler.policy
        self._caches_prefixes = config.cache.prefix_caching
        self._live = LiveRequests(parts.engine, self._text.tokenizer, policy=scheduler.policy)
        self.facts: EngineFacts = parts.facts

    # -- generating

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        service_params: ServiceParams | Sequence[ServiceParams] | None = None,
    ) -> list[RequestOutput]:
        """Continue prompts.

        Args:
            prompts: text, `{"prompt": text}`, `{"prompt_token_ids": [...]}`, or a list of these.
            sampling_params: one for all, or one for each prompt; None takes the model's defaults.
            use_tqdm: show a progress bar, where stderr is a terminal (the name is vLLM's).
            service_params: priority, whose it is, cache salt and time limits: one for all, or one for each.

        Returns:
            One output for each prompt, in the prompts' order. A request that broke while it ran has the
            finish reason "error", one whose time was over "deadline" or "queue_timeout"; the others are
            not disturbed.

        Raises:
            RequestError: a prompt or parameter is wrong; nothing was computed.
        """
        is_single = isinstance(prompts, str | Mapping)
        prompt_list: list[Any] = [prompts] if is_single else list(prompts)
        if sampling_params is None:
            sampling_params = self.get_default_sampling_params()
        if service_params is None:
            service_params = DEFAULT_SERVICE
        params_list = _spread("sampling_params", sampling_params, SamplingParams, len(prompt_list))
        service_list = _spread("service_params", service_params, ServiceParams, len(prompt_list))
        requests = [
            (self._check(prompt, params, service), params, service)
            for prompt, params, service in zip(prompt_list, params_list, service_list, strict=True)
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
        service_params: ServiceParams | Sequence[ServiceParams] | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation, or each of several: `[{"role": "user", "content": "..."}, ...]`.

        Args:
            add_generation_prompt: begin the assistant's turn.
            continue_final_message: go on with the last message instead; then without the former.
            chat_template_kwargs: further variables for the model's chat template.
            service_params: as for `generate`.

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
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm, service_params=service_params)

    def stream(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        *,
        service_params: ServiceParams = DEFAULT_SERVICE,
    ) -> Generator[RequestOutput]:
        """Continue one prompt, piece by piece: each output holds what was gained since the last one.

        Closing the iterator aborts the request. Several streams may be read in turn.

        Raises:
            RequestError: the prompt or a parameter is wrong, or what is returned is known only at the end
                (`best_of` above `n`, beam search); at the first piece.
        """
        params = self.get_default_sampling_params() if sampling_params is None else sampling_params
        check_streamable(params)
        request_id = self._live.submit(self._encode(prompt), params, service_params)
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
        requests: Iterable[GenerationRequest],
        *,
        progress: RequestProgress | None = None,
    ) -> Iterator[tuple[int, RequestOutput | RequestError]]:
        """Continue any number of prompts; each comes as soon as it is finished, with its place in `requests`.

        `requests` is read only as far as there is room in the steps, so that it may be endless. What is
        wrong with a request comes instead of its output, and the others go on.
        """
        return self._live.run_each(requests, max_waiting=self._max_num_seqs, progress=progress)

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

    # -- the prefix cache

    def pin_prefix(
        self, prompt: Prompt, *, ttl_seconds: float = DEFAULT_TTL_SECONDS, cache_salt: str = ""
    ) -> PrefixPin:
        """Keep a prompt's KV in whole blocks, computed first as far as it is not there, for `ttl_seconds`.

        Raises:
            RequestError: the prompt or the time is wrong, the prompt is shorter than a block, or prefixes
                are not cached.
        """
        check_seconds("ttl_seconds", ttl_seconds)
        service = ServiceParams(cache_salt=cache_salt)
        if not self._caches_prefixes:
            raise RequestError("nothing can be pinned: this model was loaded with prefix_caching=False")
        return self._live.pin_prefix(self._encode(prompt), ttl_seconds, service)

    def unpin_prefix(self, pin_id: int) -> None:
        """Give up a pin; its KV stays for as long as nobody needs the room.

        Raises:
            RequestError: there is no such pin, or it has expired.
        """
        self._engine.cache.unpin(pin_id)

    def cached_prefixes(self) -> CacheListing:
        """What is cached and pinned."""
        return self._engine.cache.list()

    def drop_prefix_cache(self) -> int:
        """Forget all cached prefixes and pins; how many KV blocks were known. What runs is not disturbed."""
        return self._engine.cache.drop()

    # -- asking about the model

    @property
    def has_chat_template(self) -> bool:
        return self._text.chat_template is not None

    def get_tokenizer(self) -> Tokenizer:
        return self._text.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's makers recommend, over Octavo's defaults."""
        return self.make_sampling_params({})

    def make_sampling_params(self, wanted: Mapping[str, Any]) -> SamplingParams:
        """These fields over what the model's makers recommend, as far as that goes with them.

        Raises:
            RequestError: a value is wrong.
        """
        return SamplingParams(**over_model_defaults(wanted, self._text.description.default_sampling))

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

    def _check(self, prompt: Prompt, params: SamplingParams, service: ServiceParams) -> TokensPrompt:
        """Encode a prompt, and find out now whether the engine would refuse it."""
        encoded = self._encode(prompt)
        bad_words = bad_words_token_ids(self._text.tokenizer, params.bad_words)
        service.refuse_without_effect(self._policy)
        self._engine.limits.check(encoded.token_ids, params, bad_words)
        return encoded.as_prompt()

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        return encode_prompt(prompt, self._text.tokenizer)


_Params = TypeVar("_Params")


def _spread(
    name: str, given: _Params | Sequence[_Params], params_type: type[_Params], num_prompts: int
) -> list[_Params]:
    """One for each prompt of what was given once or as often."""
    if isinstance(given, params_type):
        return [given] * num_prompts
    params_list: list[_Params] = list(given)  # type: ignore[arg-type]  # as it is no `_Params`
    if len(params_list) != num_prompts:
        raise RequestError(
            f"{len(params_list)} {name} for {num_prompts} prompts; give one or as many", param=name
        )
    return params_list
