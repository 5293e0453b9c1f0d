"""A plan as lines for a terminal: every file with its size and fate, then the sum."""

from __future__ import annotations

from scope_ltx.download.plan import Plan, staged_nbytes
from scope_ltx.download.sizes import size_text
from scope_ltx.manifest import Manifest


def plan_lines(plan: Plan, manifest: Manifest) -> list[str]:
    """One line per file; `fetch` is to be fetched, `differs` is there and is not the published one."""
    lines = [
        f"  {item.state:<8}{size_text(item.nbytes):>9}  {item.wanted.path}  ({item.wanted.repo})"
        for item in plan.items
    ]
    if not plan.to_fetch:
        return [*lines, "nothing to fetch"]
    unknown = sum(item.nbytes is None for item in plan.to_fetch)
    staged = staged_nbytes(plan.to_fetch)
    left = f", {size_text(staged)} of it already here" if staged else ""
    more = f", and {unknown} of unknown size" if unknown else ""
    total = sum(item.nbytes or 0 for item in plan.to_fetch)
    count = len(plan.to_fetch)
    lines.append(f"{size_text(total)} to fetch in {count} {'file' if count == 1 else 'files'}{more}{left}")
    lines += [f"revision  {repo} at {commit}" for repo, commit in sorted(plan.commits.items())]
    return [*lines, *_licence_lines(plan, manifest)]


def _licence_lines(plan: Plan, manifest: Manifest) -> list[str]:
    """What a person agrees to: the model's licences by name, for other repositories the page that has them."""
    facts, models = manifest.plugin, manifest.artifacts()
    repos = sorted({item.wanted.repo for item in plan.to_fetch})
    own = f"licence   {facts.model_license} ({facts.homepage}); text encoder: {facts.text_encoder_license}"
    return [own if repo in models else f"licence   see https://huggingface.co/{repo}" for repo in repos]
