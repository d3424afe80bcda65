# The image of all services of `coinml up --print compose`.
# The base is pinned, so that two builds are the same: the digest is that of the index for all
# architectures, of September 2026 (Python 3.11.16). It gets no security updates by itself; the newest is
# printed by `docker buildx imagetools inspect python:3.11-slim-bookworm`.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# yt-dlp joins streams with FFmpeg's programs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /srv/coinml
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e '.[postgres,s3]'

# State is in a volume, not in the image.
RUN useradd --create-home --uid 1000 coinml && install --directory --owner=coinml /state
ENV COINML_HOME=/state
VOLUME /state
USER coinml

CMD ["coinml", "--help"]
