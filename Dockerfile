# Two stages: the wheel is built in one, the other holds what runs and nothing that builds.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY lua lua
COPY streamq streamq
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[cli,processors]'

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 streamq && mkdir /data && chown streamq /data
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels 'streamq[cli,processors]' && rm -rf /wheels
USER streamq
WORKDIR /home/streamq
ENV PYTHONUNBUFFERED=1
CMD ["python", "-m", "streamq.worker"]
