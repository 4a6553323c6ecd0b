"""The handle on a candidate."""

from __future__ import annotations

from winnow.models.policy import CandidateHandle


async def test_a_candidate_is_stopped_in_its_engine_once_it_is_there() -> None:
    aborted: list[str] = []

    async def abort() -> None:
        aborted.append("request")

    early, late = CandidateHandle(), CandidateHandle(abort=abort)
    await early.stop()
    await late.stop()
    assert early.is_stopped
    assert late.is_stopped
    assert aborted == ["request"]
