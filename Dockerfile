# coinml with everything that `coinml up --print compose` runs.
FROM python:3.11-slim-bookworm

# FFmpeg's programs are what yt-dlp joins streams with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /srv/coinml
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e '.[postgres,s3]'

# The state is a volume's; nothing of it is in the image.
RUN useradd --create-home --uid 1000 coinml && install --directory --owner=coinml /state
ENV COINML_HOME=/state
VOLUME /state
USER coinml

CMD ["coinml", "--help"]
