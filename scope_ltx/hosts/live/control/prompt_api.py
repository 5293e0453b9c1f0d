"""The prompt over HTTP: one text, or several that are blended, at once or over some chunks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictStr, TypeAdapter, ValidationError

from scope_ltx.hosts.live.http.bodies import json_body, read_json_object
from scope_ltx.hosts.live.http.problems import BadFieldsError, FieldProblem, refusals
from scope_ltx.hosts.live.stream.live_stream import LiveStream
from scope_ltx.mode_parameters import Real, Whole
from scope_ltx.request import WeightedPrompt

MAX_BLENDED = 8
"""Each costs a text context of its own, which the text encoder makes before the chunk."""
MAX_TRANSITION_CHUNKS = 100


class Prompt(BaseModel):
    """One prompt; of a blend, its description."""

    prompt: str


class BlendedPrompt(BaseModel):
    """`weight` is relative to the others'."""

    model_config = ConfigDict(extra="forbid")

    text: StrictStr
    weight: Annotated[Real, Field(gt=0, le=1000)] = 1.0


class PromptBlend(BaseModel):
    """Prompts by weight. `transition_chunks`: over how many chunks it takes over from what was before."""

    model_config = ConfigDict(extra="forbid")

    prompts: Annotated[tuple[BlendedPrompt, ...], Field(min_length=1, max_length=MAX_BLENDED)]
    transition_chunks: Annotated[Whole, Field(ge=0, le=MAX_TRANSITION_CHUNKS)] = 0


_BODY = TypeAdapter(Prompt | PromptBlend).json_schema()


def prompt_router(stream: LiveStream) -> APIRouter:
    """GET and POST /api/prompt."""
    router = APIRouter(prefix="/api", tags=["control"])
    session = stream.session

    @router.get("/prompt")
    async def prompt() -> Prompt:
        """The prompt of the next chunk that starts."""
        return Prompt(prompt=session.prompt)

    @router.post("/prompt", responses=refusals(400, 408, 413, 415, 422), openapi_extra=json_body(_BODY))
    async def set_prompt(request: Request) -> Prompt:
        """Change the prompt, or the blend of prompts, from the next chunk that starts."""
        body = await read_json_object(request)
        name = "prompts" if "prompts" in body else "prompt"
        try:
            if name == "prompts":
                blend = PromptBlend.model_validate(body)
                mix = [WeightedPrompt(part.text, part.weight) for part in blend.prompts]
                taken = session.set_prompts(mix, blend.transition_chunks)
            else:
                taken = session.set_prompt(_single(body))
        except ValidationError as error:
            raise BadFieldsError.of(error) from error
        except ValueError as error:
            raise BadFieldsError([FieldProblem(loc=["body", name], msg=str(error))]) from error
        stream.retry()
        return Prompt(prompt=taken)

    return router


def _single(body: dict[str, Any]) -> str:
    """Raises BadFieldsError for a field that is not there, ValueError for a prompt that is no text."""
    for name in sorted(body.keys() - {"prompt"}):
        message = "there is no such field: send prompt, or prompts and transition_chunks"
        raise BadFieldsError([FieldProblem(loc=["body", name], msg=message)])
    text = body.get("prompt")
    if not isinstance(text, str):
        raise ValueError("prompt must be a string")
    return text
