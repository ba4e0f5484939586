"""More requests than the server has room for: who waits, who is refused, and that nobody is forgotten."""

import concurrent.futures
import json
import random
import re
import time
import urllib.error
import urllib.request

import pytest
from conftest import SEED, example_server

FLAGS = ("--max-num-seqs", "4", "--max-queued-requests", "6", "--kv-cache-tokens", "2048", "--max-num-batched-tokens", "64")


@pytest.fixture(scope="module")
def server(lorry, serve, tmp_path_factory):
    with example_server(lorry, serve, tmp_path_factory.mktemp("load"), "org/m", *FLAGS) as running:
        yield running


def body_of(prompt, **fields):
    return {"prompt": prompt, "temperature": 0, "max_tokens": 30, "ignore_eos": True} | fields


def request_of(server, body):
    return urllib.request.Request(
        server.url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )


def send(server, body):
    """(status, answer, headers)"""
    try:
        with urllib.request.urlopen(request_of(server, body), timeout=300) as response:
            return 200, json.loads(response.read()), response.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), error.headers


def gauge(server, name):
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as response:
        return float(re.search(rf"^lorry:{name}{{.*}} (\S+)$", response.read().decode(), re.M)[1])


def wait_until_idle(server):
    end = time.monotonic() + 120
    while gauge(server, "num_requests_running") + gauge(server, "num_requests_waiting") > 0:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert gauge(server, "kv_cache_usage_perc") == 0


def test_requests_beyond_the_queue_are_answered_429_and_the_others_as_usual(server):
    alone = send(server, body_of("Once upon", max_tokens=200))[1]["choices"][0]["text"]
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: send(server, body_of("Once upon", max_tokens=200)), range(40)))
    served = [answer for status, answer, _ in answers if status == 200]
    refused = [(answer["error"], headers) for status, answer, headers in answers if status == 429]
    assert len(served) + len(refused) == 40 and len(served) >= 10 and refused
    assert all(answer["choices"][0]["text"] == alone for answer in served)
    error, headers = refused[0]
    assert error["code"] == "rate_limit_exceeded" and "try again" in error["message"]
    assert int(headers["Retry-After"]) >= 1
    wait_until_idle(server)
    assert send(server, body_of("Once upon", max_tokens=1))[0] == 200


def test_a_request_of_more_choices_than_there_is_room_for_is_refused_whole(server):
    assert send(server, body_of("Once upon", n=11))[0] == 429
    wait_until_idle(server)
    assert send(server, body_of("Once upon", n=10))[0] == 200


def leave(server, body):
    """Reads the first bytes of a stream and hangs up."""
    with urllib.request.urlopen(request_of(server, body | {"stream": True}), timeout=300) as response:
        response.readline()
    return None


def read_slowly(server, body):
    text = ""
    with urllib.request.urlopen(request_of(server, body | {"stream": True}), timeout=300) as response:
        for line in response:
            if line.startswith(b"data: {"):
                text += json.loads(line[len("data: ") :])["choices"][0]["text"]
                time.sleep(0.01)
    return text


def ask_until_taken(server, body):
    while True:
        status, answer, _ = send(server, body)
        if status == 200:
            return answer["choices"][0]["text"]
        assert status == 429
        time.sleep(0.1)


def retried(call, server, body):
    while True:
        try:
            return call(server, body)
        except urllib.error.HTTPError as error:
            assert error.code == 429
            time.sleep(0.1)


def test_small_huge_slow_and_cancelled_requests_mixed(server):
    rng = random.Random(SEED)
    words = "the river runs past the old mill and turns its wheel".split()
    prompts = {i: f"{i} " + " ".join(rng.choices(words, k=rng.choice([3, 60, 600]))) for i in range(6)}
    wanted = {i: send(server, body_of(prompt))[1]["choices"][0]["text"] for i, prompt in prompts.items()}

    def one(_):
        i = rng.randrange(6)
        call = rng.choice([ask_until_taken, ask_until_taken, read_slowly, leave])
        return i, retried(call, server, body_of(prompts[i]))

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for i, text in pool.map(one, range(60)):
            assert text is None or text == wanted[i]
    wait_until_idle(server)
