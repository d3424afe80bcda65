"""What yt-dlp finds on this machine: plugins that provide PO tokens, and JavaScript runtimes."""

from __future__ import annotations


def pot_providers() -> list[str]:
    """The names of the PO-token providers among yt-dlp's plugins."""
    from yt_dlp.plugins import load_all_plugins

    load_all_plugins()
    # yt-dlp lists them in no public place.
    from yt_dlp.extractor.youtube.pot._registry import _pot_providers

    return sorted(str(provider.PROVIDER_NAME) for provider in _pot_providers.value.values())


def javascript_runtimes() -> list[str]:
    """The JavaScript runtimes that yt-dlp supports in the version found, with that version."""
    from yt_dlp import YoutubeDL

    with YoutubeDL({"quiet": True}) as ydl:
        found = [runtime.info for runtime in ydl._js_runtimes.values() if runtime is not None]
    return [f"{info.name} {info.version}" for info in found if info is not None and info.supported]
