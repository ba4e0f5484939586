"""`lorry plan` with prices: hours and costs by hand, a catalogue laid out as SkyPilot's, bad input."""

import json

import pytest
from conftest import EXAMPLE_MODEL, import_example, on

USAGE, FAILED = 2, 1
HEADER = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region"
INFO = "\"{'Gpus': [{'Name': 'L4', 'Count': 1}], 'TotalGpuMemoryInMiB': 24576}\""
AWS = (
    f"g6.xlarge,L4,1.0,4,16,{INFO},0.80,0.30,us-east-1",
    f"g6.xlarge,L4,1.0,4,16,{INFO},0.85,0.25,us-west-2",
    f"p5.4xlarge,H100,1.0,16,256,{INFO},6.88,2.90,us-east-1",
    f"p4d.24xlarge,A100,8.0,96,1152,{INFO},32.8,,us-east-1",
    "m6i.2xlarge,,,8,32,,0.384,0.15,us-east-1",
)
RUNPOD = (f"1x_L4,L4,1.0,12,50,{INFO},0.43,,US", f"1x_A100,A100-80GB,1.0,8,80,{INFO},1.2,0.6,CA")


@pytest.fixture
def no_catalog(tmp_path):
    return {"HOME": str(tmp_path / "home"), "SKY_RUNTIME_DIR": ""}


@pytest.fixture
def catalog(tmp_path):
    """The environment of a user of SkyPilot, and the folder of the catalogue."""
    root = tmp_path / "home" / ".sky" / "catalogs" / "v8"
    for cloud, rows in {"aws": AWS, "runpod": RUNPOD}.items():
        (root / cloud).mkdir(parents=True)
        (root / cloud / "vms.csv").write_text("\n".join((HEADER, *rows)) + "\n")
    (root / "common").mkdir()
    (root.parent / "v7" / "aws").mkdir(parents=True)  # an old one, which is not read
    (root.parent / "v7" / "aws" / "vms.csv").write_text("nonsense")
    return {"HOME": str(tmp_path / "home"), "SKY_RUNTIME_DIR": ""}, root


def machines(plan):
    return {machine["name"]: machine for machine in plan["costs"]["machines"]}


def flops_by_hand(plan, bucket):
    """4 a frozen weight, 6 a low-rank one and a token; attention from the rows' lengths."""
    import datasets

    config = json.loads((EXAMPLE_MODEL / "config.json").read_text())
    h, m, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    width = h // heads
    shapes = [(h, heads * width), (h, kv * width), (h, kv * width), (heads * width, h)]
    shapes += [(h, m), (h, m), (m, h)]
    rows = datasets.load_from_disk(str(bucket / "model-ready" / "demo" / "identity" / "0"))
    lengths = [len(row) for row in rows["input_ids"]]
    targets = sum(map(sum, rows["assistant_masks"]))
    tokens = sum(lengths)
    flops = 4 * layers * sum(a * b for a, b in shapes) * tokens
    flops += 4 * h * config["vocab_size"] * targets
    flops += 6 * layers * 16 * sum(a + b for a, b in shapes) * tokens
    flops += 12 * layers * heads * width * sum(n * (n + 1) // 2 for n in lengths)
    return flops


def test_hours_and_costs_are_what_a_hand_computes(lorry, prepared, no_catalog):
    flags = ("--prices", "H100=2.50,L4=0.80", "--utilization", 0.4, "--json")
    plan = lorry.json("plan", *on(prepared), *flags, env=no_catalog)
    flops = plan["costs"]["flops"]
    assert flops == pytest.approx(flops_by_hand(plan, prepared), rel=1e-6)
    assert plan["costs"]["utilization"] == 0.4
    for name, peak, price in (("H100", 989e12, 2.5), ("L4", 121e12, 0.8)):
        row = machines(plan)[name]
        hours = flops / (peak * 0.4) / 3600
        assert row["hours"] == pytest.approx(hours) and row["fits"] is True
        assert row["on_demand"]["cost"] == pytest.approx(hours * price)
    assert [row["name"] for row in plan["costs"]["machines"]] == ["H100", "L4"]


def test_a_measured_rate_is_plain_arithmetic(lorry, prepared, no_catalog):
    flags = ("--price", "1.5", "--tokens-per-second", 1000, "--json")
    plan = lorry.json("plan", *on(prepared), *flags, env=no_catalog)
    (row,) = plan["costs"]["machines"]
    assert row["hours"] == pytest.approx(plan["train"]["tokens"] / 1000 / 3600)
    assert row["on_demand"]["cost"] == pytest.approx(1.5 * row["hours"])
    text = lorry("plan", *on(prepared), *flags[:-1], env=no_catalog).stdout
    assert "as measured" in text and "estimate" not in text


def test_the_cheapest_machine_of_skypilots_catalogue(lorry, prepared, catalog):
    env, _ = catalog
    plan = lorry.json("plan", *on(prepared), "--json", env=env)
    rows = machines(plan)
    assert set(rows) == {"L4", "H100", "A100-80GB"}
    assert rows["L4"]["on_demand"]["usd_per_hour"] == 0.43
    assert rows["L4"]["on_demand"]["where"] == "runpod 1x_L4 in US"
    assert rows["L4"]["spot"] == {
        "usd_per_hour": 0.25,
        "cost": pytest.approx(0.25 * rows["L4"]["hours"]),
        "where": "aws g6.xlarge in us-west-2",
    }
    costs = [min(r[k]["cost"] for k in ("on_demand", "spot")) for r in plan["costs"]["machines"]]
    assert costs == sorted(costs)
    only = lorry.json("plan", *on(prepared), "--gpu", "l4", "--json", env=env)
    assert set(machines(only)) == {"L4"}
    text = lorry("plan", *on(prepared), env=env).stdout
    assert "an estimate" in text and "--utilization" in text and "runpod 1x_L4 in US" in text


def test_without_prices_a_plan_has_no_costs(lorry, prepared, no_catalog, catalog):
    assert "costs" not in lorry.json("plan", *on(prepared), "--catalog", "none", "--json", env=catalog[0])
    empty = {"HOME": "/nonexistent", "SKY_RUNTIME_DIR": ""}
    assert "costs" not in lorry.json("plan", *on(prepared), "--json", env=empty)
    asked = lorry.json("plan", *on(prepared), "--gpu", "H100", "--json", env=empty)
    assert machines(asked)["H100"]["hours"] > 0 and "on_demand" not in machines(asked)["H100"]


def test_before_the_tokens_are_there_prices_are_an_hours(lorry, bucket, no_catalog):
    import_example(lorry, bucket)
    plan = lorry.json("plan", *on(bucket), "--prices", "L4=1", "--json", env=no_catalog)
    assert "hours" not in machines(plan)["L4"]
    assert "$1.00/h" in lorry("plan", *on(bucket), "--prices", "L4=1", env=no_catalog).stdout
    rate = ("--gpu", "L4", "--price", 1, "--tokens-per-second", 100, "--json")
    assert machines(lorry.json("plan", *on(bucket), *rate, env=no_catalog))["L4"]["hours"] > 0


def test_a_broken_catalogue_is_named_and_only_fails_who_asked_for_it(lorry, prepared, catalog):
    env, root = catalog
    with (root / "aws" / "vms.csv").open("a") as file:
        file.write("g6,L4,1.0,4,16,,cheap,0.1,us-east-1\n")
    done = lorry("plan", *on(prepared), env=env)
    assert "aws/vms.csv line 7: Price 'cheap' is no price" in done.stderr
    done = lorry("plan", *on(prepared), "--catalog", root, env=env, code=FAILED)
    assert "line 7" in done.stderr
    done = lorry("plan", *on(prepared), "--catalog", "/nonexistent", env=env, code=FAILED)
    assert "/nonexistent is no catalogue" in done.stderr


@pytest.mark.parametrize(
    "flags, named",
    [
        (("--prices", "A1000=1"), "'A1000' is not one of"),
        (("--prices", "H100=-1"), "below 0"),
        (("--prices", "H100=much"), "not a number"),
        (("--price", "-1", "--gpu", "L4"), "--price"),
        (("--price", "1"), "of which machine"),
        (("--price", "1", "--prices", "L4=1", "--gpu", "L4"), "give one of them"),
        (("--gpu", "H10"), "did you mean H100"),
        (("--gpu", "H100,L4", "--price", "1"), "--gpu names several"),
        (("--tokens-per-second", "10", "--prices", "L4=1,H100=2"), "one machine"),
        (("--utilization", "0", "--prices", "L4=1"), "--utilization"),
    ],
)
def test_bad_prices_are_refused_before_any_work(lorry, prepared, no_catalog, flags, named):
    done = lorry("plan", *on(prepared), *flags, env=no_catalog, code=USAGE)
    assert named in done.stderr


def test_memory_of_a_gpu_is_said_apart(lorry, prepared, no_catalog):
    plan = lorry.json("plan", *on(prepared), "--device", "cuda", "--json", env=no_catalog)
    memory = plan["train"]["memory"]
    assert plan["train"]["device"] == "cuda" and memory["logits"] > 0
    assert memory["total"] >= 2 * memory["weights"] + memory["training_state"] + memory["logits"]
    text = lorry("plan", *on(prepared), "--device", "cuda", env=no_catalog).stdout
    assert "memory of the GPU" in text and "logits" in text
