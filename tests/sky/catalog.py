"""A catalogue of machines and prices, made by hand, where SkyPilot looks for the one it downloads.

    python tests/sky/catalog.py     into $HOME/.sky, which should be a scratch HOME

Names are real, prices only roughly so. A file without a checksum beside it counts as the user's own
and is never replaced.
"""

import pathlib

from sky.skylet import constants

GPU_MEMORY = {  # GB
    "T4": 16, "L4": 24, "A10G": 24, "A100": 40, "A100-80GB": 80, "H100": 80, "H200": 141,
}  # fmt: skip

# Machine, GPU, vCPUs, GiB of memory, dollars an hour, the same on spot.
AWS = [
    ("m6i.xlarge", "", 4, 16, 0.192, 0.08),
    ("m6i.2xlarge", "", 8, 32, 0.384, 0.15),
    ("g4dn.xlarge", "T4", 4, 16, 0.526, 0.2),
    ("g6.xlarge", "L4", 4, 16, 0.805, 0.35),
    ("g5.xlarge", "A10G", 4, 16, 1.006, 0.45),
    ("p5.4xlarge", "H100", 16, 256, 6.88, 2.9),
]
RUNPOD = [
    ("1x_A100_SECURE", "A100", 8, 60, 1.5, 0.8),
    ("1x_A100-80GB_SECURE", "A100-80GB", 8, 117, 1.64, 0.9),
    ("1x_H200_SECURE", "H200", 24, 250, 3.6, 2.3),
]


def gpu_info(gpu):
    if not gpu:
        return ""
    memory = GPU_MEMORY[gpu] * 1024
    one = {"Name": gpu, "Manufacturer": "NVIDIA", "Count": 1, "MemoryInfo": {"SizeInMiB": memory}}
    return f'"{ {"Gpus": [one], "TotalGpuMemoryInMiB": memory} }"'


def rows(machines, places):
    for name, gpu, cpus, memory, price, spot in machines:
        for region, zone in places:
            yield {
                "InstanceType": name, "AcceleratorName": gpu, "AcceleratorCount": 1 if gpu else "",
                "vCPUs": cpus, "MemoryGiB": memory, "Price": price, "SpotPrice": spot,
                "Region": region, "AvailabilityZone": zone, "Arch": "x86_64",
                "GpuInfo": gpu_info(gpu),
            }  # fmt: skip


def write(root, name, lines):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_machines(root, name, machines, places):
    table = list(rows(machines, places))
    lines = [",".join(table[0])]
    lines += [",".join(str(value) for value in row.values()) for row in table]
    write(root, f"{name}/vms.csv", lines)


def write_catalog(home):
    root = pathlib.Path(home) / ".sky" / "catalogs" / constants.CATALOG_SCHEMA_VERSION
    clouds = {gpu: "AWS" for _, gpu, *_ in AWS if gpu} | {gpu: "RunPod" for _, gpu, *_ in RUNPOD}
    write(root, "common/accelerators.csv",
          ["AcceleratorName,Clouds", *(f"{gpu},\"['{cloud}']\"" for gpu, cloud in clouds.items())])
    write(root, "common/metadata.csv",
          ["GPU,MemoryGB,Manufacturer", *(f"{gpu},{gb},nvidia" for gpu, gb in GPU_MEMORY.items())])
    write_machines(root, "aws", AWS, [("us-east-1", "use1-az1"), ("us-west-2", "usw2-az1")])
    write(root, "aws/images.csv", ["Tag,Region,OS,OSVersion,ImageId,CreationDate,BaseImageId"])
    write(root, "aws/instance_quota_mapping.csv",
          ["InstanceType,SpotInstanceCode,OnDemandInstanceCode"])
    write_machines(root, "runpod", RUNPOD, [("US", "US-TX-1")])


if __name__ == "__main__":
    write_catalog(pathlib.Path.home())
