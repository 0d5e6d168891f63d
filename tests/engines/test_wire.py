"""What is asked and answered: nonsense is refused with what was found; a server's doors; fields that would do nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import urllib.error
import urllib.request

import pytest

from tests.engines.standin import serving
from trellis.cli.vllm_serve import main
from trellis.engines import VllmColocate, check_fields, engine_for
from trellis.engines.wire import completions
from trellis.rollout import SamplingParams
from trellis.trainers.grpo_config import GRPOConfig

PARAMS = SamplingParams(3, stop_ids=frozenset([1]))


def read(answer, rows=1):
    return completions(answer, PARAMS, rows=rows, vocabulary=10, source="the server")


def answer(ids, logps):
    return {"completion_ids": [ids], "logprobs": [logps]}


def test_a_whole_answer_is_believed():
    (one,) = read(answer([4, 1], [-0.5, -0.1]))
    assert (one.ids, one.logps, one.finish_reason) == ([4, 1], [-0.5, -0.1], "stop")
    assert read(answer([4, 4, 4], [-1.0] * 3))[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "None completions"),
        ({"completion_ids": [[4, 1]]}, "1 completions and None rows"),
        (answer([4, 1], [-0.5, -0.1]) | {"logprobs": []}, "1 completions and 0 rows"),
        (answer([10, 1], [-0.5, -0.1]), "completion 0: token ids must be whole numbers in 0 … 9"),
        (answer(["a", 1], [-0.5, -0.1]), "token ids must be whole numbers"),
        (answer([4, 1], [float("nan"), -0.1]), "finite numbers"),
        (answer([4, 1], [0.5, -0.1]), "not above 0"),
        (answer([4, 1], [-0.1]), "2 tokens, 1 log-probabilities"),
        (answer([1, 4, 4], [-1.0] * 3), "goes on after a stop token"),
        (answer([4, 4], [-1.0] * 2), "ends after 2 of 3 tokens without a stop token"),
        (answer([], []), "ends after 0 of 3"),
    ],
)
def test_nonsense_is_refused_with_what_was_found(found, message):
    with pytest.raises(ValueError, match=message):
        read(found)


@pytest.fixture
def saved(llama, tmp_path):
    """The directory of a saved model."""
    llama.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def ask(port, path, body=None, **headers):
    """(status, answer) of one request."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_server_answers_on_trl_paths_and_refuses_the_rest(saved):
    with serving(saved) as server:
        assert ask(server.port, "/health/") == (200, {"status": "ok"})
        assert ask(server.port, "/get_world_size/") == (200, {"world_size": 1})
        asked = {"prompts": [[3, 4]], "n": 2, "max_tokens": 4, "temperature": 1.0}
        status, found = ask(server.port, "/generate/", asked)
        assert status == 200
        assert [len(ids) for ids in found["completion_ids"]] == [4, 4]
        assert found["prompt_ids"] == [[3, 4]]
        assert ask(server.port, "/reset_prefix_cache/", {})[0] == 200
        assert ask(server.port, "/close_communicator/", {})[0] == 200
        assert ask(server.port, "/nothing/")[0] == 404
        status, found = ask(server.port, "/generate/", asked | {"prompts": ["text"]})
        assert (status, found["error"].split(":")[0]) == (400, "prompts must be lists of token ids")
        assert ask(server.port, "/generate/", {"prompts": [[3]]})[0] == 400
        assert ask(server.port, "/init_communicator/", {}) == (400, {"error": "the request has no 'port'"})
        assert ask(server.port, "/wait/", {"job": 99})[0] == 404


def test_trainer_and_server_on_one_gpu_are_refused(saved):
    with serving(saved) as server:
        server.facts["devices"] = ["GPU-7"]
        body = {"host": "localhost", "port": 1, "client_device_uuid": "GPU-7"}
        status, found = ask(server.port, "/init_communicator/", body)
    assert status == 400
    assert "CUDA_VISIBLE_DEVICES" in found["error"]


def test_without_the_key_nothing_is_answered(saved):
    with serving(saved, key="right") as server:
        assert ask(server.port, "/health/")[0] == 401
        assert ask(server.port, "/generate/", {}, Authorization="Bearer wrong")[0] == 401
        assert ask(server.port, "/health/", Authorization="Bearer right")[0] == 200


def config(tmp_path, **fields):
    return GRPOConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", **fields)


def other(value):
    """A value that is not `value`."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else "other"


def vllm_fields():
    plain = ("vllm_mode",)
    return [
        f
        for f in dataclasses.fields(GRPOConfig)
        if f.name.startswith("vllm_") and "importance" not in f.name and f.name not in plain
    ]


@pytest.mark.parametrize("field", vllm_fields(), ids=lambda f: f.name)
def test_a_vllm_field_that_would_do_nothing_is_refused(tmp_path, field):
    args = config(tmp_path)
    setattr(args, field.name, other(field.default))
    with pytest.raises(ValueError, match=f"{field.name}=.* has no effect: use_vllm is False"):
        engine_for(args, model=None)
    args.use_vllm, refused = True, []
    for mode in ("server", "colocate"):
        args.vllm_mode = mode
        try:
            check_fields(args)
        except ValueError as error:
            refused.append(str(error).split("=")[0])
    assert refused == ([] if "regex" in field.name else [field.name])


def test_no_engine_where_none_is_asked_for(tmp_path, llama):
    assert engine_for(config(tmp_path), model=llama) is None


def test_an_address_is_given_once(tmp_path):
    with pytest.raises(ValueError, match="vllm_server_base_url says it already"):
        config(tmp_path, use_vllm=True, vllm_server_base_url="http://a:1", vllm_server_port=9)


def test_colocation_needs_a_model_with_a_name(tmp_path, llama):
    with pytest.raises(ValueError, match=r"save_pretrained\('DIRECTORY'\)"):
        engine_for(config(tmp_path, use_vllm=True, vllm_mode="colocate"), model=llama)


@pytest.fixture
def no_vllm():
    """A Python without vllm, for one test."""
    before = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING")
    sys.modules["vllm"] = None
    yield
    del sys.modules["vllm"]
    if before is None:
        os.environ.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)


def test_a_missing_vllm_is_one_error(no_vllm, saved, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["--model", "m"])
    assert "pip install 'trellis-rl[vllm]'" in capsys.readouterr().err
    with pytest.raises(ImportError, match="vllm cannot be imported .*expected on a machine with a GPU"):
        VllmColocate(str(saved))


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "gpu-box", "::"])
def test_serving_beyond_this_machine_needs_a_key(host, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "m", "--host", host])
    assert "TRELLIS_VLLM_KEY" in capsys.readouterr().err
