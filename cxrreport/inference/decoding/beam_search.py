"""Beam search by transformers, one request at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from cxrreport.inference.decoding.forward import ForwardPasses
from cxrreport.inference.decoding.slot_scheduling import Finished, RequestQueue
from cxrreport.inference.decoding.token_choice import TokenChoice, check_finite
from cxrreport.model.prompt import positions
from cxrreport.settings import Beam


@torch.inference_mode()
def beam_search(queue: RequestQueue, beam: Beam, passes: ForwardPasses, choice: TokenChoice) -> Iterator[Finished]:
    """Search a text for every request; one more forward pass gives its log-probabilities."""
    while True:
        queue.refill(1, wait=True)
        if not queue.waiting:
            return
        prepared = queue.waiting.popleft()
        started = time.time_ns()
        prompt = passes.prompt_inputs([prepared])
        found = passes.model.generate(
            **prompt,
            **passes.image_inputs([prepared]),
            num_beams=beam.beams,
            length_penalty=beam.length_penalty,
            do_sample=False,
            max_new_tokens=prepared.max_new_tokens,
            eos_token_id=choice.eos_id,
            suppress_tokens=choice.suppressed[prepared.request.locations],
            renormalize_logits=True,
        )
        new = found[:, prepared.length :]
        ids: list[int] = new[0].tolist()
        if choice.eos_id in ids:
            ids = ids[: ids.index(choice.eos_id) + 1]
        new = new[:, : len(ids)]
        ones = torch.ones_like(new)
        mask = torch.cat([prompt["attention_mask"], ones], dim=1)
        output = passes.model(
            input_ids=torch.cat([prompt["input_ids"], new], dim=1),
            token_type_ids=torch.cat([prompt["token_type_ids"], ones], dim=1),
            attention_mask=mask,
            position_ids=positions(mask),
            use_cache=False,
            logits_to_keep=len(ids) + 1,
            **passes.image_inputs([prepared]),  # made anew, because transformers repeats the first ones for its beams
        )
        logits = choice.restrict(output.logits[0, :-1].float(), [prepared])
        logprobs = (logits.gather(1, new[0, :, None])[:, 0] - logits.logsumexp(-1)).tolist()
        check_finite(prepared, min(logprobs))
        yield prepared, ids, logprobs, started
