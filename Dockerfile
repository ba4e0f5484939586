# lorry in an image, from the wheel that ./dev wheel has left in dist/.
#
#   ./dev wheel
#   docker build -t lorry .                                  CUDA 13 build of libtorch (driver 580 or newer)
#   docker build -t lorry --build-arg TORCH=cpu .            for machines without a GPU, 1.7 GB
#   docker build -t lorry --build-arg TORCH=cu128 .          for drivers from 570
#   docker build -t lorry --build-arg TORCH=none .           data verbs alone, 0.5 GB
#   docker run --rm -p 8080:8080 --env-file .env lorry serve --host 0.0.0.0
#   docker run --rm --gpus all --env-file .env lorry run
FROM debian:12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH=cu130
COPY dist/lorry-*.whl /tmp/
RUN python3 -m venv /opt/lorry \
    && pip="/opt/lorry/bin/pip install --no-cache-dir" \
    && case $TORCH in \
        none) ;; \
        cpu) $pip --no-deps 'torch==2.11.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*' ;; \
        cu130) $pip 'torch==2.11.*' ;; \
        *) $pip --index-url "https://download.pytorch.org/whl/$TORCH" 'torch==2.11.*' ;; \
    esac \
    && $pip 'pyarrow==26.0.*' \
    && $pip --no-deps /tmp/lorry-*.whl \
    && rm /tmp/lorry-*.whl \
    && /opt/lorry/bin/lorry --version

ENV PATH=/opt/lorry/bin:$PATH
WORKDIR /work
EXPOSE 8080
ENTRYPOINT ["lorry"]
CMD ["--help"]
