# The image of all services of `coinml up --print compose`.
# The tag moves: it gets Debian's and Python's security updates, and two builds may differ. To pin
# the base, write its digest after the tag. `docker buildx imagetools inspect` prints it:
#   FROM python:3.11-slim-bookworm@sha256:…
FROM python:3.11-slim-bookworm

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
