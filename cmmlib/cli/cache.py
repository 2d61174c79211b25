"""`cmm cache`: what the cache of embeddings holds, whether it is sound, and its size."""

from __future__ import annotations

from typing import Annotated

import typer

from cmmlib.errors import counted, tell

app = typer.Typer(rich_markup_mode=None, help="The cache of embeddings: what it holds, is it sound, how large.")


@app.command("list")
def list_cache() -> None:
    """Say what the cache holds, by kind."""
    from cmmlib.storage import cache_maintenance
    from cmmlib.storage.cache import cache_folder

    folder = cache_folder()
    entries, others = cache_maintenance.entries(folder), cache_maintenance.others(folder)
    print(folder)
    print(cache_maintenance.summary(entries, others).to_string(index=False))


@app.command("verify")
def verify_cache() -> None:
    """Read every entry that has a checksum and compare them; damaged ones are removed, to be computed again, and the
    exit code is 1."""
    from cmmlib.storage import cache_maintenance
    from cmmlib.storage.cache import cache_folder

    entries = [entry for entry in cache_maintenance.entries(cache_folder()) if entry.has_checksum]
    damaged = cache_maintenance.drop_damaged(entries)
    for path in damaged:
        done = "could not be removed" if path.exists() else "removed"
        tell(f"damaged, {done}: {path.relative_to(cache_folder())}")
    print(f"{counted(len(entries), 'entry', 'entries')}, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(1)


@app.command("prune")
def prune_cache(size: Annotated[str, typer.Option(help="what the cache may keep, as in 500MB or 20GB")]) -> None:
    """Cut the cache to a size: what was not used for longest goes first, and what killed processes left behind."""
    from cmmlib.storage import cache_maintenance
    from cmmlib.storage.cache import cache_folder

    most = cache_maintenance.parse_size(size)
    left = cache_maintenance.drop_left_behind(cache_folder())
    removed = cache_maintenance.prune(cache_maintenance.entries(cache_folder()), most)
    freed = sum(entry.size for entry in removed) / 1e6
    entries, files = counted(len(removed), "entry", "entries"), counted(len(left), "file")
    print(f"{entries} removed, {freed:.1f} MB; {files} that killed processes left behind")
